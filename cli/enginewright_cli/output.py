"""Printing: tables for people, JSON and YAML for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Object = dict[str, Any]

_PIPE_WIDTH = 4096

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
for stream in (console, errors):
    if not stream.is_terminal:
        stream.width = 160  # a log or a pipe has no width of its own; 80 would break every sentence


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def print_data(data: Any, form: Format) -> None:
    """JSON or YAML on standard output, nothing else."""
    if form is Format.JSON:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        documents = data if isinstance(data, list) else [data]
        print(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), end="")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table. On a terminal the last column wraps; in a pipe no line does."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    wide = None if console.is_terminal else _PIPE_WIDTH
    Console(highlight=False, width=wide).print(table)


def condition(item: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of that type; empty when it is not there yet."""
    for entry in item.get("status", {}).get("conditions", ()):
        if entry.get("type") == kind:
            return dict(entry)
    return {}


def age(item: Mapping[str, Any], now: datetime | None = None) -> str:
    """As kubectl prints it: 45s, 12m, 3h, 5d."""
    created = item["metadata"].get("creationTimestamp")
    if not created:
        return "?"
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(created)).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"
