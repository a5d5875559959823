"""The controllers' hands: read the objects afresh, ask the pure planners, write what they say."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..objects.labels import matches
from ..port import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    JOB,
    POD,
    SERVICE,
    Cluster,
    ConflictError,
    InvalidError,
    NotFoundError,
    Object,
    Ref,
)
from .deployments import plan_deployment
from .endpoints import slices_for
from .events import Events
from .jobs import plan_job
from .names import COMPONENT, JOB_NAME, LOCAL_PORTS, MANAGED_BY, TEMPLATE_HASH
from .pods import from_template, is_leaving, owned_by, template_hash, uid_of

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Controllers:
    """Each `sync_…` looks at everything of its kind and returns the seconds after which time alone matters."""

    def __init__(self, cluster: Cluster, events: Events, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._events = events
        self._now = now

    async def sync_deployments(self) -> float | None:
        """Deployments → Pods."""
        pods, services = await self._cluster.list(POD), await self._cluster.list(SERVICE)
        waits = []
        for deployment in await self._cluster.list(DEPLOYMENT):
            if is_leaving(deployment):
                continue
            own = [pod for pod in pods if owned_by(pod, deployment)]
            plan = plan_deployment(deployment, own, self._now(), exclusive=_has_fixed_ports(deployment, services))
            mark = template_hash(deployment["spec"]["template"])
            for _ in range(plan.create):
                name = f"{deployment['metadata']['name'][:230]}-{mark}-{_suffix()}"
                await self._create(from_template(deployment, name, {TEMPLATE_HASH: mark}))
            await self._delete(deployment, plan.delete)
            metadata = deployment["metadata"]
            await self._report(Ref(DEPLOYMENT, metadata["name"], metadata["namespace"]), deployment, plan.status)
            waits.append(plan.again_seconds)
        return _soonest(waits)

    async def sync_jobs(self) -> float | None:
        """Jobs → Pods."""
        pods = await self._cluster.list(POD)
        waits = []
        for job in await self._cluster.list(JOB):
            if is_leaving(job):
                continue
            plan = plan_job(job, [pod for pod in pods if owned_by(pod, job)], self._now())
            name = job["metadata"]["name"]
            if plan.create is not None:
                labels = {JOB_NAME: name, "job-name": name, "batch.kubernetes.io/controller-uid": uid_of(job)}
                # The number makes the name, so that a reply lost after the write cannot lead to a second pod.
                await self._create(from_template(job, f"{name[:240]}-{plan.create}", labels))
            await self._delete(job, plan.delete)
            ref = Ref(JOB, name, job["metadata"]["namespace"])
            await self._report(ref, job, plan.status)
            if plan.remove:
                await self._cluster.delete(ref, uid=uid_of(job))
            waits.append(plan.again_seconds)
        return _soonest(waits)

    async def sync_endpoints(self) -> float | None:
        """Services and ready Pods → EndpointSlices."""
        pods = await self._cluster.list(POD)
        wanted: dict[tuple[str, str], Object] = {}
        for service in await self._cluster.list(SERVICE):
            for item in slices_for(service, pods):
                wanted[item["metadata"]["namespace"], item["metadata"]["name"]] = item
        for item in await self._cluster.list(ENDPOINT_SLICE, labels={MANAGED_BY: COMPONENT}):
            key = (item["metadata"]["namespace"], item["metadata"]["name"])
            if key not in wanted:
                await self._cluster.delete(Ref(ENDPOINT_SLICE, key[1], key[0]), uid=uid_of(item))
        for item in wanted.values():
            await self._cluster.apply(item, field_manager=COMPONENT)
        return None

    async def withdraw_all(self) -> None:
        """No endpoint is left: the agent ends, or has just begun."""
        for item in await self._cluster.list(ENDPOINT_SLICE, labels={MANAGED_BY: COMPONENT}):
            await self._cluster.delete(
                Ref(ENDPOINT_SLICE, item["metadata"]["name"], item["metadata"]["namespace"]), uid=uid_of(item)
            )

    async def _create(self, pod: Object) -> None:
        try:
            await self._cluster.create(pod)
        except ConflictError:
            return  # it exists: the next look sees it
        except InvalidError as error:
            owner = pod["metadata"]["ownerReferences"][0]
            item = await self._owner(pod, owner)
            if item is not None:
                await self._events.emit(item, "FailedCreate", error.message, warning=True)

    async def _owner(self, pod: Object, reference: Mapping[str, Any]) -> Object | None:
        kind = DEPLOYMENT if reference["kind"] == "Deployment" else JOB
        try:
            return await self._cluster.get(Ref(kind, reference["name"], pod["metadata"]["namespace"]))
        except NotFoundError:
            return None

    async def _delete(self, owner: Object, pods: Iterable[Object]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            await self._events.emit(owner, "SuccessfulDelete", f"deletes pod {metadata['name']}")
            await self._cluster.delete(Ref(POD, metadata["name"], metadata["namespace"]), uid=uid_of(pod))

    async def _report(self, ref: Ref, item: Object, status: Mapping[str, Any]) -> None:
        if status == item.get("status"):
            return
        try:
            await self._cluster.patch_status(ref, status, uid=uid_of(item))
        except (NotFoundError, ConflictError):
            return  # deleted, or deleted and made anew: the next look sees it


def _has_fixed_ports(deployment: Object, services: Sequence[Object]) -> bool:
    template = {"metadata": deployment["spec"]["template"].get("metadata") or {}}
    return any(
        LOCAL_PORTS in (service["metadata"].get("annotations") or {})
        and service["metadata"]["namespace"] == deployment["metadata"]["namespace"]
        and bool(service["spec"].get("selector"))
        and matches(service["spec"]["selector"], template)
        for service in services
    )


def _suffix() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(5))


def _soonest(waits: Iterable[float | None]) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)
