"""An event loop whose time passes only when nothing else is left to do: hours of timers in milliseconds, the same in
each run."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(AssertionError):  # noqa: N818 - what the test found
    """Every task waits and no timer is left."""


class _Jumping(selectors.SelectSelector):
    """Instead of waiting it moves the loop's time."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self.loop.seconds += timeout
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`loop.time()` starts at 0. No threads, no network."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.loop = self
        self.seconds = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Seconds that have passed."""
        return self.seconds

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end; everything else that was started runs beside it."""
        return self.run_until_complete(work)

    def end(self) -> None:
        """Cancel what still runs and close."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()


class LoopClock:
    """The wall clock of a virtual loop."""

    def __init__(self, loop: VirtualTimeLoop, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._loop = loop
        self._start = start

    def __call__(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())

    def forward(self, seconds: float) -> None:
        """Let time pass for the timers too."""
        self._loop.run(asyncio.sleep(seconds))
