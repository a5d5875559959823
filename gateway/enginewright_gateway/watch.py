"""Feeds the route table from the cluster: OptimizedModels and the EndpointSlices of their Services."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from enginewright_api.errors import EnginewrightError
from enginewright_api.logs import facts
from enginewright_api.meta import ConditionStatus
from enginewright_api.names import canary_service_name
from enginewright_api.optimized_model import OptimizedModel
from enginewright_cluster.port import (
    ENDPOINT_SLICE,
    OPTIMIZED_MODEL,
    Cluster,
    EventType,
    Kind,
    UnavailableError,
    WatchEvent,
)

from .routes import Canary, Endpoint, RouteTable, ServedModel

SERVICE_LABEL = "kubernetes.io/service-name"
_RETRY_SECONDS = 1.0
_SYNC_POLL_SECONDS = 0.2

logger = logging.getLogger("enginewright.gateway.watch")


def _key(manifest: Mapping[str, Any]) -> str:
    metadata = manifest["metadata"]
    return f"{metadata.get('namespace') or 'default'}/{metadata['name']}"


def served_model(manifest: Mapping[str, Any]) -> ServedModel:
    """What the gateway needs of an OptimizedModel. Raises pydantic's ValidationError for an object it cannot read."""
    model = OptimizedModel.of(dict(manifest))
    ready = next((item for item in model.status.conditions if item.type == "Ready"), None)
    condition = ""
    if ready is None:
        condition = "Pending: the operator has not looked at this model yet"
    elif ready.status is not ConditionStatus.TRUE:
        condition = f"{ready.reason}: {ready.message}" if ready.message else ready.reason
    batching = model.spec.batching
    stamp = model.metadata.creation_timestamp
    return ServedModel(
        namespace=model.metadata.namespace or "default",
        name=model.metadata.name,
        task=model.spec.task,
        max_batch_size=batching.max_batch_size or model.spec.engine.limits.max_batch_size,
        max_queue_size=batching.max_queue_size,
        queue_timeout_seconds=batching.queue_timeout_milliseconds / 1000,
        created=int(datetime.fromisoformat(stamp).timestamp()) if stamp else 0,
        condition=condition,
        canary=_canary(model),
    )


def _canary(model: OptimizedModel) -> Canary | None:
    """Weight and Service of a new engine, as the operator says; a weight of 0 is no canary."""
    rollout = model.status.rollout
    if rollout is None or rollout.weight <= 0:
        return None
    service = canary_service_name(model.metadata.name, rollout.label)
    namespace = model.metadata.namespace or "default"
    return Canary(service=f"{namespace}/{service}", weight=rollout.weight, window=rollout.window)


def ready_endpoints(slices: Iterable[Mapping[str, Any]]) -> list[Endpoint]:
    """Ready endpoints of one Service, each once.

    A dual-stack Service has an IPv4 and an IPv6 slice with the same pods: then only IPv4 counts. Slices without the
    ports `http` and `grpc` belong to something else.
    """
    by_family: dict[str, dict[Endpoint, None]] = {"IPv4": {}, "IPv6": {}}
    for item in slices:
        ports = {port.get("name"): port.get("port") for port in item.get("ports") or ()}
        family = by_family.get(item.get("addressType", "IPv4"))
        if family is None or not ports.get("http") or not ports.get("grpc"):
            continue
        for endpoint in item.get("endpoints") or ():
            # A missing condition counts as ready, as the EndpointSlice API says.
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("addresses"):
                family[Endpoint(endpoint["addresses"][0], int(ports["http"]), int(ports["grpc"]))] = None
    return list(by_family["IPv4"] or by_family["IPv6"])


class _Feed:
    """Turns watch events of both kinds into changes of the table."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._slices: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._service_of: dict[str, str] = {}
        self.seen: dict[Kind, set[str]] = {OPTIMIZED_MODEL: set(), ENDPOINT_SLICE: set()}

    def model_event(self, event: WatchEvent) -> None:
        key = _key(event.object)
        if event.type is EventType.DELETED:
            self._table.drop_model(key)
            return
        try:
            self._table.put_model(served_model(event.object))
        except ValidationError as error:
            # An object this version cannot read keeps its last good route; the operator reports it to the user.
            logger.warning(
                "OptimizedModel %s cannot be read: %s", key, error.errors(include_input=False)[:3],
                extra=facts(event.object),
            )  # fmt: skip

    def slice_event(self, event: WatchEvent) -> None:
        key = _key(event.object)
        namespace = key.partition("/")[0]
        before = self._service_of.pop(key, None)
        if before is not None:
            self._slices[before].pop(key, None)
        service = (event.object["metadata"].get("labels") or {}).get(SERVICE_LABEL)
        after = f"{namespace}/{service}" if service and event.type is not EventType.DELETED else None
        if after is not None:
            self._service_of[key] = after
            self._slices.setdefault(after, {})[key] = event.object
        for changed in {before, after} - {None}:
            if changed is not None:
                self._table.put_endpoints(changed, ready_endpoints(self._slices[changed].values()))
                if not self._slices[changed]:
                    del self._slices[changed]


async def _consume(cluster: Cluster, kind: Kind, namespace: str | None, feed: _Feed) -> None:
    handle = feed.model_event if kind == OPTIMIZED_MODEL else feed.slice_event
    while True:
        try:
            async for event in cluster.watch(kind, namespace=namespace):
                handle(event)
                feed.seen[kind].add(_key(event.object))
        except UnavailableError as error:
            # Routes stay as they were: a cluster that cannot be asked is no reason to stop serving.
            logger.warning("watch of %s broke off, again in %.0f s: %s", kind.plural, _RETRY_SECONDS, error.message)
        await asyncio.sleep(_RETRY_SECONDS)


async def _wait_synced(cluster: Cluster, namespace: str | None, feed: _Feed, table: RouteTable) -> None:
    """Mark the table synced when the watches have delivered all that a list shows."""
    for kind, seen in feed.seen.items():
        while True:
            with contextlib.suppress(UnavailableError):
                listed = {_key(item) for item in await cluster.list(kind, namespace=namespace)}
                if listed <= seen:
                    break
            await asyncio.sleep(_SYNC_POLL_SECONDS)
    table.known.set()


async def follow(cluster: Cluster, table: RouteTable, namespace: str | None = None) -> None:
    """Keep `table` up to date until cancelled. Raises what waiting cannot mend: no permission, no such kind."""
    feed = _Feed(table)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_consume(cluster, OPTIMIZED_MODEL, namespace, feed), name="watch-models")
            group.create_task(_consume(cluster, ENDPOINT_SLICE, namespace, feed), name="watch-endpoints")
            group.create_task(_wait_synced(cluster, namespace, feed, table), name="first-sync")
    except* EnginewrightError as failures:
        raise failures.exceptions[0] from None
