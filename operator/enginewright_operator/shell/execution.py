"""Executes a plan. Every effect is safe to repeat: a crash or a lost reply between two of them costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from enginewright_api.names import FIELD_MANAGER
from enginewright_cluster.port import Cluster, FieldConflictError, NotFoundError, OwnedField, Ref, kind_of

from ..core.effects import (
    Apply,
    Create,
    Delete,
    Effect,
    Emit,
    Object,
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
                await self._apply(manifest)
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

    async def _apply(self, manifest: Object) -> None:
        """What we say of a child holds; who said otherwise is named. Without a conflict it is one request."""
        try:
            await self._cluster.apply(manifest, force=False)
        except FieldConflictError as conflict:
            await self._cluster.apply(manifest)
            # A field that we patched ourselves is ours too.
            taken = [each for each in conflict.owned if each.manager != FIELD_MANAGER]
            if taken:
                await self._tell(_taken_back(manifest, taken))

    async def _delete(self, reference: Reference, uid: str | None) -> None:
        try:
            await self._cluster.delete(_ref(reference), uid=uid)
        except NotFoundError:
            log.debug("already gone", extra={"object": reference.name})


def _taken_back(child: Object, taken: Sequence[OwnedField]) -> Emit:
    """About the owner, where people look. Told once of the same fields and managers: a fight would never end."""
    metadata = child["metadata"]
    fields: dict[str, list[str]] = {}
    for each in taken:
        fields.setdefault(each.manager, []).append(each.field)
    name = f"{child['kind']} {metadata['name']}"
    shown = f"{child['kind']} {metadata['namespace']}/{metadata['name']}"
    log.warning("fields taken back", extra={"object": shown, "fields": fields})
    owner = next(iter(metadata.get("ownerReferences", ())), None)
    about = child
    if owner is not None:
        identity = {"name": owner["name"], "namespace": metadata["namespace"], "uid": owner.get("uid", "")}
        about = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "metadata": identity}
    told = "; ".join(f"{', '.join(paths)} (set by {manager!r})" for manager, paths in sorted(fields.items()))
    message = f"{name}: {told}: taken back, since these follow from the {about['kind']}; change that instead"
    return Emit(about, "Warning", "FieldTakenBack", message, f"{name} {fields}")


def _ref(reference: Reference) -> Ref:
    kind = kind_of({"apiVersion": reference.api_version, "kind": reference.kind})
    return Ref(kind, reference.name, reference.namespace if kind.namespaced else None)
