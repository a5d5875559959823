"""Plays the Job and Deployment controllers where there is no kube-controller-manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from enginewright_api.identity import digest_of
from enginewright_cluster.port import DEPLOYMENT, JOB, POD, Cluster, Object, Ref
from enginewright_operator.core.conditions import rfc3339
from enginewright_operator.shell.gathering import Clock


@dataclass
class Controllers:
    """Pods from Jobs and Deployments, statuses from pods. Rolling updates: maxSurge 1, maxUnavailable 0."""

    cluster: Cluster
    clock: Clock
    namespace: str = "default"

    async def step(self) -> bool:
        """Whether anything was written."""
        pods = list(await self.cluster.list(POD, namespace=self.namespace))
        moved = False
        for job in await self.cluster.list(JOB, namespace=self.namespace):
            moved |= await self._job(job, owned(pods, job))
        for deployment in await self.cluster.list(DEPLOYMENT, namespace=self.namespace):
            moved |= await self._deployment(deployment, owned(pods, deployment))
        return moved

    async def _job(self, job: Object, pods: list[Object]) -> bool:
        """A failure is told twice, as the real controller does: first that it is certain, then that all pods ended."""
        told = list(job.get("status", {}).get("conditions", []))
        if any(condition["type"] in ("Complete", "Failed") for condition in told):
            return False
        if not pods:
            return await self._pod(job, f"{job['metadata']['name']}-x")
        phase = pods[0].get("status", {}).get("phase")
        if phase not in ("Succeeded", "Failed"):
            return False
        type_, reason = ("Complete", "") if phase == "Succeeded" else ("Failed", "BackoffLimitExceeded")
        if type_ == "Failed" and not told:
            type_ = "FailureTarget"
        now = rfc3339(self.clock())
        condition = {"type": type_, "status": "True", "reason": reason, "lastTransitionTime": now}
        await self.cluster.patch_status(_ref(JOB, job), {"conditions": [*told, condition]})
        return True

    async def _deployment(self, deployment: Object, pods: list[Object]) -> bool:
        wanted = int(deployment["spec"].get("replicas", 1))
        revision = digest_of(deployment["spec"]["template"])[:8]
        new = [pod for pod in pods if pod["metadata"]["labels"].get("pod-template-hash") == revision]
        old = [pod for pod in pods if pod not in new]
        moved = False
        room = wanted + 1 if old else wanted
        if len(new) < wanted and len(pods) < room:
            moved |= await self._pod(deployment, f"{deployment['metadata']['name']}-{revision}-{len(new)}", revision)
        spare = len([pod for pod in pods if is_ready(pod)]) - wanted
        for pod in [*[pod for pod in old if not is_ready(pod) or spare > 0][:1], *new[wanted:]]:
            await self.cluster.delete(_ref(POD, pod))
            moved = True
        status: dict[str, Any] = {
            "observedGeneration": deployment["metadata"].get("generation", 1),
            "replicas": len(pods),
            "updatedReplicas": len(new),
            "readyReplicas": len([pod for pod in pods if is_ready(pod)]),
            "availableReplicas": len([pod for pod in pods if is_ready(pod)]),
        }
        present = deployment.get("status", {})
        if all(present.get(key, 0) == value for key, value in status.items()):
            return moved
        await self.cluster.patch_status(_ref(DEPLOYMENT, deployment), status)
        return True

    async def _pod(self, owner: Object, name: str, revision: str = "") -> bool:
        template, metadata = owner["spec"]["template"], owner["metadata"]
        labels = {**template["metadata"]["labels"], **({"pod-template-hash": revision} if revision else {})}
        await self.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": metadata["namespace"],
                    "labels": labels,
                    "ownerReferences": [
                        {
                            "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"],
                            "uid": metadata["uid"], "controller": True,
                        }
                    ],
                },
                "spec": template["spec"],
            }
        )  # fmt: skip
        return True


def owned(pods: list[Object], owner: Object) -> list[Object]:
    """Pods that an object controls."""
    uid = owner["metadata"]["uid"]
    return [pod for pod in pods if any(item["uid"] == uid for item in pod["metadata"].get("ownerReferences", []))]


def is_ready(pod: Object) -> bool:
    """By its condition."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _ref(kind: Any, item: Object) -> Ref:
    return Ref(kind, item["metadata"]["name"], item["metadata"].get("namespace"))
