"""One row of a data set, and the files rows are read from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from enginewright_api.errors import DeterministicError
from enginewright_api.source import Columns

SUFFIXES = (".jsonl", ".csv", ".txt")


@dataclass(frozen=True, slots=True)
class Row:
    """A text, and what a human said about it."""

    text: str
    text_pair: str | None = None
    label: str | None = None
    score: float | None = None

    @property
    def normalized(self) -> str:
        """What two rows are compared by: letters' case and spaces do not count."""
        return " ".join(self.text.lower().split())


def read_rows(file: Path, columns: Columns, *, name: str) -> list[Row]:
    """Rows of a .jsonl, .csv or .txt file; `name` is what messages call it.

    Raises DeterministicError InvalidDataset: unknown ending, missing column, broken line, empty set.
    """
    if file.suffix not in SUFFIXES:
        raise _invalid(name, f"the ending must be one of {', '.join(SUFFIXES)}, not {file.suffix or 'none'!r}")
    try:
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(name, f"is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise _invalid(name, f"cannot be read ({error.strerror})") from error
    records = {".jsonl": _json_lines, ".csv": _csv, ".txt": _lines}[file.suffix](content, name)
    rows = [_row(record, columns, name, number) for number, record in records]
    rows = [row for row in rows if row.text.strip()]
    if not rows:
        raise _invalid(name, "holds no rows with text")
    return rows


def _json_lines(content: str, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise _invalid(name, f"line {number} is not JSON ({error.msg})") from error
        if not isinstance(record, dict):
            raise _invalid(name, f"line {number} is not a JSON object")
        yield number, record


def _csv(content: str, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(content), strict=True)
    try:
        for record in reader:
            yield reader.line_num, {str(key): value for key, value in record.items()}
    except csv.Error as error:
        raise _invalid(name, f"line {reader.line_num} is not CSV ({error})") from error


def _lines(content: str, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            yield number, {"text": line.strip()}


def _row(record: Mapping[str, object], columns: Columns, name: str, number: int) -> Row:
    def cell(field: str, column: str | None) -> str | None:
        if column is None:
            return None
        value = record.get(column)
        if value is None:
            there = ", ".join(sorted(record)) or "none"
            raise _invalid(name, f"line {number} has no column {column!r} (columns.{field}); it has {there}")
        return str(value)

    score = cell("score", columns.score)
    try:
        number_of_score = None if score is None else float(score)
    except ValueError as error:
        raise _invalid(name, f"line {number}: column {columns.score!r} is not a number but {score!r}") from error
    return Row(
        text=cell("text", columns.text) or "",
        text_pair=cell("textPair", columns.text_pair),
        label=cell("label", columns.label),
        score=number_of_score,
    )


def _invalid(name: str, what: str) -> DeterministicError:
    return DeterministicError("InvalidDataset", f"data set {name}: {what}")
