"""Plays the controller of LeaderWorkerSets (sigs.k8s.io/lws), which runs in no cluster of ours.

Groups of pods, their names and labels, and the status are as its version 0.9 sets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from enginewright_api.identity import digest_of
from enginewright_cluster.port import LEADER_WORKER_SET, POD, Cluster, Object, Ref
from tests.scenarios.controllers import is_ready, owned

CRD = Path(__file__).parents[1] / "kube" / "crds" / "leaderworkersets.yaml"
"""Definition of the kind."""

_LABEL = "leaderworkerset.sigs.k8s.io"
_REVISION = f"{_LABEL}/template-revision-hash"


@dataclass
class GroupController:
    """One group at a time is replaced when the templates change; a group lives and dies as one."""

    cluster: Cluster
    namespace: str = "default"

    async def step(self) -> bool:
        """Whether anything was written."""
        pods = list(await self.cluster.list(POD, namespace=self.namespace))
        moved = False
        for item in await self.cluster.list(LEADER_WORKER_SET, namespace=self.namespace):
            if not item["metadata"].get("deletionTimestamp"):
                moved |= await self._set(item, owned(pods, item))
        return moved

    async def _set(self, item: Object, pods: list[Object]) -> bool:
        wanted, size = int(item["spec"]["replicas"]), int(item["spec"]["leaderWorkerTemplate"]["size"])
        revision = digest_of(item["spec"]["leaderWorkerTemplate"])[:10]
        groups = {int(index): list(members) for index, members in groupby(sorted(pods, key=_index), _index)}
        outdated = [index for index, members in groups.items() if not _all_of(members, revision)]
        going = [index for index in groups if index >= wanted] or outdated[:1]
        moved = False
        for pod in [pod for index in going for pod in groups.pop(index)]:
            await self.cluster.delete(_ref(pod))
            moved = True
        for index in [index for index in range(wanted) if index not in groups and index not in going]:
            groups[index] = [await self._pod(item, revision, index, worker) for worker in range(size)]
            moved = True
        status = {
            "observedGeneration": item["metadata"].get("generation", 1),
            "replicas": len(groups),
            "readyReplicas": sum(len(members) == size and all(map(is_ready, members)) for members in groups.values()),
            "updatedReplicas": sum(_all_of(members, revision) for members in groups.values()),
        }
        if item.get("status", {}) == status:
            return moved
        metadata = item["metadata"]
        await self.cluster.patch_status(Ref(LEADER_WORKER_SET, metadata["name"], metadata["namespace"]), status)
        return True

    async def _pod(self, item: Object, revision: str, group: int, worker: int) -> Object:
        metadata, template = item["metadata"], item["spec"]["leaderWorkerTemplate"]
        chosen = template["workerTemplate"] if worker else template["leaderTemplate"]
        labels = {
            f"{_LABEL}/name": metadata["name"], f"{_LABEL}/group-index": str(group),
            f"{_LABEL}/worker-index": str(worker), _REVISION: revision,
        }  # fmt: skip
        name = f"{metadata['name']}-{group}" + (f"-{worker}" if worker else "")
        owner = {
            "apiVersion": item["apiVersion"], "kind": item["kind"], "name": metadata["name"], "uid": metadata["uid"],
            "controller": True,
        }  # fmt: skip
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": {**chosen["metadata"]["labels"], **labels},
                "ownerReferences": [owner],
            },
            "spec": {**chosen["spec"], "hostname": name, "subdomain": metadata["name"]},
        }
        return await self.cluster.create(pod)


def _index(pod: Object) -> str:
    return str(pod["metadata"]["labels"][f"{_LABEL}/group-index"])


def _all_of(members: list[Object], revision: str) -> bool:
    return all(pod["metadata"]["labels"][_REVISION] == revision for pod in members)


def _ref(pod: Object) -> Ref:
    return Ref(POD, pod["metadata"]["name"], pod["metadata"]["namespace"])
