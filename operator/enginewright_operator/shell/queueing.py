"""The queue of keys: each key once, one worker a key, namespaces in turn, back-off of its own after failures."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from .waiting import Key, Taken, Waiting


@dataclass(frozen=True, slots=True)
class BackOff:
    """Exponential pauses with full jitter on the upper half, so that keys that fail together spread out."""

    first_seconds: float = 1.0
    most_seconds: float = 300.0

    def pause_seconds(self, failures: int, draw: float) -> float:
        """Pause after the n-th failure in a row; `draw` is uniform in [0, 1)."""
        full = min(self.most_seconds, self.first_seconds * 2.0 ** min(failures - 1, 32))
        return full * (0.5 + 0.5 * draw)


Handle = Callable[[Key], Awaitable[float | None]]
"""Reconciles one key; answers when to look again (seconds), or None. Raises what should be tried again."""


@dataclass
class Queue:
    """Deduplicated keys with due times. Times are those of the running event loop."""

    handle: Handle
    workers: int = 8
    back_off: BackOff = field(default_factory=BackOff)
    failed: Callable[[Key, Exception, float], None] = lambda key, error, pause: None
    begun: Callable[[Key, float], None] = lambda key, late: None
    """Told of each visit and how long after its time it begins."""
    around: Callable[[Key], AbstractContextManager[None]] = lambda key: contextlib.nullcontext()
    """Entered for the time of a visit, until its failure has been told."""
    _waiting: Waiting = field(default_factory=Waiting)
    _failures: dict[Key, int] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _random: random.Random = field(default_factory=random.Random)

    def add(self, key: Key, after_seconds: float = 0.0) -> None:
        """Ask for a visit; the earliest request counts. A key that is being visited is visited once more."""
        due = asyncio.get_running_loop().time() + after_seconds
        if self._waiting.add(key, due):
            self._changed.set()

    def asks_for(self, key: Key) -> bool:
        """Whether a visit of this key is due; during one, whether another one follows at once."""
        due = self._waiting.due(key)
        return due is not None and due <= asyncio.get_running_loop().time()

    @property
    def depth(self) -> int:
        """Keys that wait, whether due or not."""
        return len(self._waiting)

    @property
    def late_seconds(self) -> float:
        """How long the key that is due for longest has waited; 0 when none is due."""
        first = self._waiting.first_due
        return 0.0 if first is None else max(0.0, asyncio.get_running_loop().time() - first)

    @property
    def idle(self) -> bool:
        """Nothing is being done and nothing is due now."""
        first = self._waiting.first_due
        return not self._waiting.busy and (first is None or first > asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.workers):
                group.create_task(self._work(), name=f"reconcile-{number}")

    async def _work(self) -> None:
        while True:
            key = await self._next()
            try:
                with self.around(key):
                    await self._visit(key)
            finally:
                self._waiting.done(key)
                self._changed.set()
            # A visit that is answered from memory never suspends: watches and the lease need their turn too.
            await asyncio.sleep(0)

    async def _visit(self, key: Key) -> None:
        try:
            again = await self.handle(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = self.back_off.pause_seconds(failures, self._random.random())
            self.failed(key, error, pause)
            self.add(key, pause)
            return
        self._failures.pop(key, None)
        if again is not None:
            self.add(key, again)

    async def _next(self) -> Key:
        while True:
            wait = self._waiting.take(asyncio.get_running_loop().time())
            if isinstance(wait, Taken):
                self.begun(wait.key, wait.late_seconds)
                return wait.key
            self._changed.clear()
            # Not asyncio.wait_for: before Python 3.12 it can swallow a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
