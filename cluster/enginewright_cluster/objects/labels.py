"""Label selectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def matches(wanted: Mapping[str, str] | None, item: Mapping[str, Any]) -> bool:
    """Whether an object carries all the labels; every object does when none are wanted."""
    if not wanted:
        return True
    labels = item["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def selector_text(wanted: Mapping[str, str]) -> str:
    """`a=1,b=2`, as the API's labelSelector parameter and status.selector have it."""
    return ",".join(f"{key}={value}" for key, value in sorted(wanted.items()))
