"""Kubernetes Events: told at once while the operator keeps up, one a second while it is behind."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.identity import digest_of
from enginewright_cluster.port import Cluster, ConflictError, Object

from ..core.conditions import rfc3339
from ..core.effects import Emit
from .gathering import Clock

log = logging.getLogger(__name__)

COMPONENT = "enginewright-operator"
PAUSE_SECONDS = 1.0
"""Between Events while visits are late."""
MOST_WAITING = 10_000
"""Events that wait at a time; the oldest go first."""


class Teller:
    """Sends Events. What waits is lost when the process ends: the conditions say the same for as long as they hold."""

    def __init__(self, cluster: Cluster, clock: Clock, behind: Callable[[], bool]) -> None:
        """`behind`: whether visits are late. A new model has six Events, writes that nobody waits for."""
        self._cluster = cluster
        self._clock = clock
        self._behind = behind
        self._waiting: deque[Object] = deque(maxlen=MOST_WAITING)
        self._came = asyncio.Event()
        self._dropped = 0
        """Of late, since it was last logged."""

    async def tell(self, event: Emit) -> None:
        """Now, or in its turn when visits are late. Raises TransientError when the cluster is away now."""
        found = event_object(event, self._clock)
        if not self._behind():
            await self._send(found)
            return
        self._dropped += len(self._waiting) == self._waiting.maxlen
        self._waiting.append(found)
        self._came.set()

    async def run(self) -> None:
        """Tell what waits, one at a time, until cancelled."""
        while True:
            while self._waiting:
                if self._behind():
                    await asyncio.sleep(PAUSE_SECONDS)
                self._log_dropped()
                event = self._waiting.popleft()
                try:
                    await self._send(event)
                except TransientError as error:
                    log.warning("event lost", extra={**_what(event), "error": str(error)})
            self._came.clear()
            await self._came.wait()

    def _log_dropped(self) -> None:
        """One line for many: ten thousand new models dropped thirty thousand Events."""
        if self._dropped:
            log.warning("events dropped: too many waited", extra={"events": self._dropped})
            self._dropped = 0

    async def _send(self, event: Object) -> None:
        """Events are told once: their name says the occasion. One that is refused is logged, not retried."""
        try:
            await self._cluster.create(event)
        except ConflictError:
            log.debug("event was told before", extra=_what(event))
        except DeterministicError as error:
            log.warning("event refused", extra={**_what(event), "error": str(error)})


def _what(event: Object) -> dict[str, str]:
    """For lines that are written when its visit is long over."""
    about = event["involvedObject"]
    return {"reason": event["reason"], "object": f"{about['kind']} {about['namespace']}/{about['name']}"}


def event_object(event: Emit, clock: Clock) -> Object:
    """A core/v1 Event."""
    metadata = event.about["metadata"]
    namespace = metadata.get("namespace") or "default"
    occasion = digest_of([metadata.get("uid", ""), event.reason, event.occasion])[:16]
    now = rfc3339(clock())
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{occasion}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": event.about["apiVersion"],
            "kind": event.about["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata.get("uid", ""),
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
