"""Level-triggered loops: look again whenever something changed, or time says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from enginewright_api.errors import EnginewrightError

from ..port import Cluster, Kind

_SETTLE_SECONDS = 0.005
_RESYNC_SECONDS = 60.0
_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.2, 10.0

logger = logging.getLogger("enginewright.agent")

Sync = Callable[[], Awaitable[float | None]]
"""Brings the world in line; gives the seconds after which to look again without a change, if any."""


class Changes:
    """One watch a kind; wakes those who registered for it."""

    def __init__(self, cluster: Cluster, kinds: Sequence[Kind]) -> None:
        self._cluster = cluster
        self._kinds = kinds
        self._listeners: list[tuple[frozenset[Kind], asyncio.Event]] = []

    def listen(self, *kinds: Kind) -> asyncio.Event:
        """An event that is set, now and at every change of these kinds."""
        event = asyncio.Event()
        event.set()
        self._listeners.append((frozenset(kinds), event))
        return event

    async def follow(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in self._kinds:
                group.create_task(self._follow(kind), name=f"watch-{kind.plural}")

    async def _follow(self, kind: Kind) -> None:
        async for _ in self._cluster.watch(kind):
            for kinds, event in self._listeners:
                if kind in kinds:
                    event.set()


async def keep(name: str, sync: Sync, changed: asyncio.Event) -> None:
    """Sync after every change, forever. An error is logged and tried again with back-off."""
    failures = 0
    while True:
        changed.clear()
        try:
            again = await sync()
            failures = 0
        except EnginewrightError as error:
            again = min(_RETRY_SECONDS * 2**failures, _MAX_RETRY_SECONDS)
            failures += 1
            logger.warning("%s: %s; trying again in %.1f s", name, error, again)
        wait = _RESYNC_SECONDS if again is None else min(again + _SETTLE_SECONDS, _RESYNC_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await changed.wait()
        await asyncio.sleep(_SETTLE_SECONDS)  # several changes at once are one look
