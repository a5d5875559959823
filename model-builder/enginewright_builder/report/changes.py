"""What each step did to the network, in the words of a report: from the results that the stages told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STEPS = {
    "distil": "Distillation",
    "prune": "Pruning",
    "factorize": "Low rank",
    "exit": "Early exit",
    "learn": "Quantisation-aware training",
    "quantize": "Quantisation",
}
"""Stages that change the network, in their order."""

_SIZES = frozenset({"parameters", "parametersBefore", "flops", "flopsBefore"})
_ELSEWHERE = frozenset({"sensitivity"})
_LIST_MOST = 24


@dataclass(frozen=True, slots=True)
class Change:
    """One step."""

    title: str
    parameters: tuple[int, int] | None
    """Before and after."""
    flops: tuple[int, int] | None
    """Of one text of 128 tokens, before and after."""
    notes: tuple[tuple[str, tuple[str, ...]], ...]
    """What else it told: (what, lines); several lines where it told something of each module."""


def changes(results: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """The steps that ran, in their order."""
    return [_change(title, results[stage]) for stage, title in STEPS.items() if stage in results]


def sensitivity(results: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Error by module, where the quantisation measured it."""
    found = results.get("quantize", {}).get("sensitivity")
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, Mapping) and {"module", "error"} <= set(row)]


def _change(title: str, result: Mapping[str, Any]) -> Change:
    notes = [
        (_words(name), lines)
        for name, value in result.items()
        if name not in _SIZES | _ELSEWHERE and any(lines := _lines(value))
    ]
    return Change(title, _pair(result, "parameters"), _pair(result, "flops"), tuple(notes))


def _lines(value: object) -> tuple[str, ...]:
    """One line, or one for each module."""
    if isinstance(value, Mapping):
        return tuple(f"{name}: {_text(item)}" for name, item in value.items())
    return (_text(value),)


def _pair(result: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    before, after = result.get(f"{name}Before"), result.get(name)
    return (before, after) if isinstance(before, int) and isinstance(after, int) else None


def _words(name: str) -> str:
    """`leakedRows` → `leaked rows`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def _text(value: object) -> str:
    """A value for people; lists and mappings on one line, cut where they are long."""
    if isinstance(value, Mapping):
        return _cut([f"{name}: {_text(item)}" for name, item in value.items()])
    if isinstance(value, list):
        return _cut([_text(item) for item in value])
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _cut(parts: list[str]) -> str:
    rest = f" … and {len(parts) - _LIST_MOST} more" if len(parts) > _LIST_MOST else ""
    return ", ".join(parts[:_LIST_MOST]) + rest
