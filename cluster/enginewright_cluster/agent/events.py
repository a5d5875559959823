"""Events that people read: repeated ones are counted, not repeated."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from enginewright_api.errors import EnginewrightError

from ..objects.metadata import timestamp
from ..port import EVENT, Cluster, NotFoundError, Object, Ref
from .names import COMPONENT, NODE_NAME
from .pods import parse_time

KEPT = timedelta(hours=1)
_MESSAGE_CHARACTERS = 1024

logger = logging.getLogger("enginewright.agent")


class Events:
    """Writes Events; one that cannot be written is logged and let go, as in a kubelet."""

    def __init__(self, cluster: Cluster, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._now = now

    async def emit(self, item: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Record that something happened to an object."""
        metadata, message = item["metadata"], message[:_MESSAGE_CHARACTERS]
        level = logging.WARNING if warning else logging.INFO
        logger.log(level, "%s %s: %s: %s", item["kind"], metadata["name"], reason, message)
        mark = hashlib.sha256(f"{metadata['uid']}/{reason}/{message}".encode()).hexdigest()[:16]
        name = f"{metadata['name'][:200].rstrip('.-')}.{mark}"
        now = timestamp(self._now())
        try:
            before = await self._before(Ref(EVENT, name, metadata.get("namespace")))
            await self._cluster.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": name, "namespace": metadata.get("namespace") or "default"},
                    "involvedObject": {
                        "apiVersion": item["apiVersion"],
                        "kind": item["kind"],
                        "name": metadata["name"],
                        "namespace": metadata.get("namespace", ""),
                        "uid": metadata["uid"],
                    },
                    "type": "Warning" if warning else "Normal",
                    "reason": reason,
                    "message": message,
                    "source": {"component": COMPONENT, "host": NODE_NAME},
                    "reportingComponent": COMPONENT,
                    "count": (before or {}).get("count", 0) + 1,
                    "firstTimestamp": (before or {}).get("firstTimestamp", now),
                    "lastTimestamp": now,
                },
                field_manager=COMPONENT,
            )
        except EnginewrightError as error:
            logger.warning("event %s not written: %s", name, error)

    async def forget_old(self) -> None:
        """Delete Events that have not recurred for an hour."""
        for event in await self._cluster.list(EVENT):
            last = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
            if parse_time(last) < self._now() - KEPT:
                metadata = event["metadata"]
                await self._cluster.delete(Ref(EVENT, metadata["name"], metadata["namespace"]))

    async def _before(self, ref: Ref) -> Object | None:
        try:
            return await self._cluster.get(ref)
        except NotFoundError:
            return None
