"""A local copy of the objects that decisions rest on, kept by watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enginewright_api.errors import TransientError
from enginewright_autoscaler.replicas import SERVER_LABELS, belongs_to
from enginewright_cluster.port import DEPLOYMENT, OPTIMIZED_MODEL, POD, Cluster, EventType, Kind, Object, WatchEvent

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0
WATCHED: tuple[tuple[Kind, Mapping[str, str] | None], ...] = (
    (OPTIMIZED_MODEL, None),
    (DEPLOYMENT, SERVER_LABELS),
    (POD, SERVER_LABELS),
)


@dataclass(slots=True)
class _Copy:
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    broken_since: float | None = None


class Mirror:
    """Objects as last heard of. Cheap to look at every second; what is about to be written is read afresh first."""

    def __init__(self, cluster: Cluster, *, namespace: str | None, clock: Callable[[], float]) -> None:
        self._cluster, self._namespace, self._clock = cluster, namespace, clock
        self._copies = {kind: _Copy() for kind, _ in WATCHED}

    async def follow(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind, labels in WATCHED:
                group.create_task(self._follow(kind, labels), name=f"watch {kind.plural}")

    def models(self) -> Sequence[Object]:
        """All OptimizedModels."""
        return list(self._copies[OPTIMIZED_MODEL].objects.values())

    def deployments(self, namespace: str, model: str) -> list[Object]:
        """A model's Deployments."""
        return [each for each in self._copies[DEPLOYMENT].objects.values() if belongs_to(each, namespace, model)]

    def pods(self, namespace: str, model: str) -> list[Object]:
        """A model's serving pods."""
        return [each for each in self._copies[POD].objects.values() if belongs_to(each, namespace, model)]

    def as_of(self, now: float) -> float:
        """Since when the copy may be out of date; now while every watch runs."""
        return min((copy.broken_since for copy in self._copies.values() if copy.broken_since is not None), default=now)

    async def _follow(self, kind: Kind, labels: Mapping[str, str] | None) -> None:
        copy, pause = self._copies[kind], _FIRST_PAUSE_SECONDS
        while True:
            try:
                async for event in self._cluster.watch(kind, namespace=self._namespace, labels=labels):
                    if copy.broken_since is not None:
                        # Deletions were missed, so what is not told again is gone.
                        copy.objects.clear()
                        copy.broken_since, pause = None, _FIRST_PAUSE_SECONDS
                    self._take(copy, event)
                problem = "it ended"
            except TransientError as error:
                problem = error.message
            if copy.broken_since is None:
                copy.broken_since = self._clock()
                log.warning("the watch of %s broke, trying again: %s", kind.plural, problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @staticmethod
    def _take(copy: _Copy, event: WatchEvent) -> None:
        metadata = event.object.get("metadata") or {}
        key = (metadata.get("namespace", ""), metadata.get("name", ""))
        if event.type is EventType.DELETED:
            copy.objects.pop(key, None)
        else:
            copy.objects[key] = event.object
