"""What the cluster's objects say about a model's replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from enginewright_api.names import LABEL_MODEL, PART_OF
from enginewright_autoscaler.policy import Pending
from enginewright_cluster.port import Object

SERVER_LABELS: Mapping[str, str] = {
    "app.kubernetes.io/part-of": PART_OF,
    "app.kubernetes.io/component": "server",
}
"""Deployments and pods that serve, of every model."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Pods of a model by what they can do now. Rolling out, those of the old engine and of the new one."""

    ready: int
    starting: int
    unplaced: int
    unplaced_since: datetime | None
    message: str

    def pending(self, *, now: float, wall: datetime) -> Pending | None:
        """For the policy, on its clock."""
        if self.unplaced == 0:
            return None
        waited = 0.0 if self.unplaced_since is None else max(0.0, (wall - self.unplaced_since).total_seconds())
        return Pending(self.unplaced, now - waited, self.message)


def belongs_to(manifest: Object, namespace: str, model: str) -> bool:
    """Whether a Deployment or pod serves this model."""
    metadata = manifest.get("metadata") or {}
    return metadata.get("namespace") == namespace and (metadata.get("labels") or {}).get(LABEL_MODEL) == model


def count(deployments: Iterable[Object], pods: Iterable[Object]) -> Replicas:
    """Count pods; those that a node has no room for, or that a quota forbids, are unplaced."""
    ready = starting = 0
    unplaced: list[tuple[int, datetime | None, str]] = []
    for pod in pods:
        if (pod.get("metadata") or {}).get("deletionTimestamp"):
            continue
        status = pod.get("status") or {}
        if status.get("phase") in ("Succeeded", "Failed"):
            continue
        conditions = _conditions(status)
        if conditions.get("Ready", {}).get("status") == "True":
            ready += 1
            continue
        starting += 1
        scheduled = conditions.get("PodScheduled", {})
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            unplaced.append((1, _time(scheduled), scheduled.get("message", "")))
    for deployment in deployments:
        status = deployment.get("status") or {}
        failure = _conditions(status).get("ReplicaFailure", {})
        missing = (deployment.get("spec") or {}).get("replicas", 1) - status.get("replicas", 0)
        if failure.get("status") == "True" and missing > 0:
            unplaced.append((missing, _time(failure), failure.get("message", "")))
    since = min((at for _, at, _ in unplaced if at is not None), default=None)
    message = next((text for _, _, text in unplaced if text), "")
    return Replicas(ready, starting, sum(number for number, _, _ in unplaced), since, message)


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {condition.get("type", ""): condition for condition in status.get("conditions") or []}


def _time(condition: Mapping[str, Any]) -> datetime | None:
    try:
        at = datetime.fromisoformat(condition["lastTransitionTime"])
    except (KeyError, ValueError):
        return None
    return at if at.tzinfo is not None else None
