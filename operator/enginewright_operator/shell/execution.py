"""Executes a plan. Every effect is safe to repeat: a crash or a lost reply between two of them costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from enginewright_cluster.port import Cluster, NotFoundError, Ref, kind_of

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

log = logging.getLogger(__name__)

Outdated = Callable[[], Awaitable[bool]]
"""Whether what a plan was made for is known to have changed since."""


class Executor:
    """Turns effects into calls of the cluster port, in order; the first that fails ends the visit."""

    def __init__(
        self,
        cluster: Cluster,
        tell: Callable[[Emit], Awaitable[None]],
        counted: Callable[[str], None] = lambda effect: None,
    ) -> None:
        self._cluster = cluster
        self._tell = tell
        self._counted = counted

    async def execute(
        self, plan: Plan, outdated: Outdated, postponed: Callable[[], bool] = lambda: False
    ) -> float | None:
        """Seconds after which to look again, if the plan says so. Raises what the cluster raised.

        A plan that is outdated before one of its writes ends there, to be made anew at once. `postponed` is asked
        before a status that may wait, and true only where another visit follows at once.
        """
        again: list[float] = []
        for effect in plan.effects:
            if isinstance(effect, RequeueAfter):
                again.append(effect.seconds)
                continue
            if await outdated():
                return 0.0
            if isinstance(effect, PatchStatus) and effect.may_wait and postponed():
                continue
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
            case PatchStatus(reference, patch, uid, events):
                for event in events:
                    await self._tell(event)
                await self._cluster.patch_status(_ref(reference), patch, uid=uid)
            case Delete(reference, uid):
                await self._delete(reference, uid)
            case Emit():
                await self._tell(effect)

    async def _delete(self, reference: Reference, uid: str | None) -> None:
        try:
            await self._cluster.delete(_ref(reference), uid=uid)
        except NotFoundError:
            log.debug("already gone", extra={"object": reference.name})


def _ref(reference: Reference) -> Ref:
    kind = kind_of({"apiVersion": reference.api_version, "kind": reference.kind})
    return Ref(kind, reference.name, reference.namespace if kind.namespaced else None)
