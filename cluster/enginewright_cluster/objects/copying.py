"""Copies of objects."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def copied(item: T) -> T:
    """A deep copy of JSON: several times faster than `copy.deepcopy`, which must expect anything."""
    if isinstance(item, dict):
        return {key: copied(value) for key, value in item.items()}  # type: ignore[return-value]  # as T is a dict
    if isinstance(item, list):
        return [copied(value) for value in item]  # type: ignore[return-value]  # as T is a list
    return item
