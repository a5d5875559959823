"""Statuses that wait for the next visit: of what a model's visits would say one after the other, only the last is told.

A visit that writes a child is followed by another one, which sees the child. Its status would be a request for nothing,
and with a thousand new models requests are what everything waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .waiting import Key

MOST_SECONDS = 1.0
"""People watch a status: one that goes on being overtaken is told this often."""
LEAST_TIMES = 2
"""Visits that are late by more than that let it wait this often all the same."""


class Postponing:
    """Who let their status wait, since when and how often in a row. Times are those of the running event loop."""

    def __init__(self, asked: Callable[[Key], bool]) -> None:
        """`asked`: whether another visit of a key is due."""
        self._asked = asked
        self._waiting: dict[Key, tuple[float, int]] = {}

    def visit(self, key: Key) -> Callable[[], bool]:
        """A visit begins. Answers what it asks before it writes the status: whether that waits for the next visit."""
        now = asyncio.get_running_loop().time
        since, times = self._waiting.pop(key, (now(), 0))

        def waits() -> bool:
            if not self._asked(key) or (times >= LEAST_TIMES and now() - since >= MOST_SECONDS):
                return False
            self._waiting[key] = since, times + 1
            return True

        return waits
