"""What an operator wrote, written once more by a client that decides nothing: the floor under its creation times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from enginewright_api.names import LABEL_MODEL
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENGINE_BUILD,
    OPTIMIZED_MODEL,
    SERVICE,
    Kind,
    Object,
    Ref,
    kind_of,
)

WRITERS = 16
"""Models written at a time."""
_KINDS: tuple[Kind, ...] = (OPTIMIZED_MODEL, ENGINE_BUILD, CONFIG_MAP, SERVICE, DEPLOYMENT)
"""In the order in which they are written."""
_WITH_STATUS = (OPTIMIZED_MODEL, ENGINE_BUILD)


async def write_copies(cluster: KubernetesCluster, copies: Mapping[str, str], *, a_second: float) -> list[float]:
    """Copies every model of each namespace, with all its objects, into the other namespace, which is made.

    `a_second` models are due each second. Seconds from when a model was due until all its objects were written: model,
    EngineBuild, ConfigMap, Service, Deployment, and each status once; no events, no watches.
    """
    found: dict[tuple[str, str], list[Object]] = {}
    for namespace, copy in copies.items():
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": copy}})
        for kind in _KINDS:
            for item in await cluster.list(kind, namespace=namespace):
                labels = item["metadata"].get("labels", {})
                if kind == OPTIMIZED_MODEL or LABEL_MODEL in labels:
                    found.setdefault((copy, labels.get(LABEL_MODEL, item["metadata"]["name"])), []).append(item)
    room, begun = asyncio.Semaphore(WRITERS), time.monotonic()

    async def write(number: int, namespace: str, objects: list[Object]) -> float:
        due = begun + number / a_second
        await asyncio.sleep(due - time.monotonic())
        async with room:
            owners: list[Object] = []
            for item in objects:
                made = await cluster.create(_bare(item, namespace, owners))
                if not owners:
                    metadata = made["metadata"]
                    owners = [{"apiVersion": made["apiVersion"], "kind": made["kind"], "name": metadata["name"],
                               "uid": metadata["uid"], "controller": True}]  # fmt: skip
                if kind_of(item) in _WITH_STATUS and "status" in item:
                    ref = Ref(kind_of(item), item["metadata"]["name"], namespace)
                    await cluster.patch_status(ref, item["status"])
        return time.monotonic() - due

    return list(await asyncio.gather(*(write(at, key[0], found[key]) for at, key in enumerate(found))))


def _bare(item: Object, namespace: str, owners: list[Object]) -> Object:
    """What a client writes of an object: nothing that the API server assigned."""
    given = item["metadata"]
    metadata = {key: given[key] for key in ("name", "labels", "annotations") if key in given}
    bare = {key: item[key] for key in ("apiVersion", "kind", "spec", "data") if key in item}
    if kind_of(item) == SERVICE:
        bare["spec"] = {key: value for key, value in item["spec"].items() if not key.startswith("clusterIP")}
    return {**bare, "metadata": {**metadata, "namespace": namespace, "ownerReferences": owners}}
