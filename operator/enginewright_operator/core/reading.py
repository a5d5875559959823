"""Reads objects of ours that no schema may have seen: written before it was, or while it was relaxed.

What does not parse must harm its own object only, so nothing is taken for granted about its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from .effects import Object

Parsed = TypeVar("Parsed")


def mapping(value: object, *path: str) -> Mapping[str, Any]:
    """The object at `path` below `value`; empty where anything else is."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def texts(value: object) -> tuple[str, ...]:
    """The strings of a list; nothing of what is no list."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def objects(value: object) -> tuple[Mapping[str, Any], ...]:
    """The objects of a list, likewise."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(item for item in value if isinstance(item, Mapping))


def parsed(of: Callable[[Object], Parsed], manifest: Object) -> Parsed:
    """The object, its status counted as never written where that does not parse. Raises ValidationError for a spec."""
    try:
        return of(manifest)
    except ValidationError:
        return of({key: value for key, value in manifest.items() if key != "status"})
