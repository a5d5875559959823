"""Executes a plan. Every effect is safe to repeat: a crash or a lost reply between two of them costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import digest_of
from enginewright_cluster.port import Cluster, ConflictError, NotFoundError, Object, Ref, kind_of

from ..core.conditions import rfc3339
from ..core.effects import (
    Apply,
    Create,
    Delete,
    Effect,
    Emit,
    Patch,
    PatchStatus,
    Plan,
    Reference,
    RequeueAfter,
)
from .gathering import Clock

log = logging.getLogger(__name__)

COMPONENT = "enginewright-operator"

Outdated = Callable[[], Awaitable[bool]]
"""Whether what a plan was made for is known to have changed since."""


class Executor:
    """Turns effects into calls of the cluster port, in order; the first that fails ends the visit."""

    def __init__(self, cluster: Cluster, clock: Clock, counted: Callable[[str], None] = lambda effect: None) -> None:
        self._cluster = cluster
        self._clock = clock
        self._counted = counted

    async def execute(self, plan: Plan, outdated: Outdated) -> float | None:
        """Seconds after which to look again, if the plan says so. Raises what the cluster raised.

        A plan that is outdated before one of its writes ends there, to be made anew at once.
        """
        again: list[float] = []
        for effect in plan.effects:
            if isinstance(effect, RequeueAfter):
                again.append(effect.seconds)
                continue
            if await outdated():
                return 0.0
            await self._write(effect)
            self._counted(type(effect).__name__)
        return min(again, default=None)

    async def _write(self, effect: Effect) -> None:
        match effect:
            case Apply(manifest):
                await self._cluster.apply(manifest)
            case Create(manifest):
                await self._cluster.create(manifest)
            case Patch(reference, patch, uid, resource_version):
                precondition = {"resourceVersion": resource_version} if resource_version is not None else {}
                metadata = {**patch.get("metadata", {}), **precondition}
                whole = {**patch, **({"metadata": metadata} if metadata else {})}
                await self._cluster.patch(_ref(reference), whole, uid=uid)
            case PatchStatus(reference, patch, uid):
                await self._cluster.patch_status(_ref(reference), patch, uid=uid)
            case Delete(reference, uid):
                await self._delete(reference, uid)
            case Emit():
                await self._emit(effect)

    async def _delete(self, reference: Reference, uid: str | None) -> None:
        try:
            await self._cluster.delete(_ref(reference), uid=uid)
        except NotFoundError:
            log.debug("already gone", extra={"object": reference.name})

    async def _emit(self, event: Emit) -> None:
        """Events are told once: their name says the occasion. One that is refused is logged, not retried."""
        try:
            await self._cluster.create(event_object(event, self._clock))
        except ConflictError:
            log.debug("event was told before", extra={"reason": event.reason})
        except DeterministicError as error:
            log.warning("event refused", extra={"reason": event.reason, "error": str(error)})


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


def _ref(reference: Reference) -> Ref:
    kind = kind_of({"apiVersion": reference.api_version, "kind": reference.kind})
    return Ref(kind, reference.name, reference.namespace if kind.namespaced else None)
