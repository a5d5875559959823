"""Conditions of built-in kinds, changed only where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ..objects.metadata import timestamp

Condition = dict[str, Any]


def with_condition(
    conditions: Iterable[Mapping[str, Any]],
    kind: str,
    status: bool,
    reason: str,
    message: str,
    *,
    now: datetime,
    updated: bool = False,
) -> list[Condition]:
    """The list with this condition set; its times move only when it changes (or on `updated`, lastUpdateTime)."""
    kept = [dict(entry) for entry in conditions]
    wanted = {"type": kind, "status": "True" if status else "False", "reason": reason, "message": message}
    for entry in kept:
        if entry["type"] == kind:
            if any(entry.get(key, "") != value for key, value in wanted.items()) or updated:
                if entry["status"] != wanted["status"]:
                    entry["lastTransitionTime"] = timestamp(now)
                entry.update(wanted, lastUpdateTime=timestamp(now))
            return kept
    return [*kept, {**wanted, "lastTransitionTime": timestamp(now), "lastUpdateTime": timestamp(now)}]
