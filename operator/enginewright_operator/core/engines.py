"""The Deployments and LeaderWorkerSets of a model as they stand, and which of them its Service selects."""

from __future__ import annotations

from dataclasses import dataclass

from enginewright_api.names import LABEL_ARTIFACT, LABEL_BUILD_KEY, engine_build_name

from .effects import Object
from .pod_causes import Cause, worst_cause
from .snapshot import ModelSnapshot


@dataclass(frozen=True, slots=True)
class Running:
    """One engine's Deployment, or LeaderWorkerSet: then replicas are groups."""

    manifest: Object
    label: str
    """Artifact label: the first 32 hex digits of the digest."""
    wanted: int
    existing: int
    ready: int
    seen: bool
    """The controller has seen the present spec."""
    uniform: bool
    """No pod of an earlier template is left."""
    cause: Cause | None
    """Why some pod of it is not ready."""

    @property
    def name(self) -> str:
        """Name of the Deployment or LeaderWorkerSet."""
        return str(self.manifest["metadata"]["name"])

    @property
    def nodes(self) -> int:
        """Pods of one replica, each on a node of its own."""
        group = self.manifest.get("spec", {}).get("leaderWorkerTemplate")
        return 1 if group is None else int(group.get("size", 1))

    @property
    def build_name(self) -> str:
        """EngineBuild that the engine came from."""
        metadata = self.manifest["metadata"]
        noted = metadata.get("annotations", {}).get("enginewright.io/engine-build")
        return str(noted or engine_build_name(metadata.get("labels", {}).get(LABEL_BUILD_KEY, "")))


def running_engines(snapshot: ModelSnapshot) -> dict[str, Running]:
    """Those that are not being deleted, by artifact label."""
    found = {}
    for manifest in snapshot.workloads:
        metadata, status = manifest["metadata"], manifest.get("status", {})
        if metadata.get("deletionTimestamp"):
            continue
        label = metadata.get("labels", {}).get(LABEL_ARTIFACT, "")
        existing, updated = int(status.get("replicas", 0)), int(status.get("updatedReplicas", 0))
        seen = int(status.get("observedGeneration", 0)) >= int(metadata.get("generation", 1))
        pods = [pod for pod in snapshot.pods if pod["metadata"].get("labels", {}).get(LABEL_ARTIFACT) == label]
        found[label] = Running(
            manifest=manifest,
            label=label,
            wanted=int(manifest["spec"].get("replicas", 1)),
            existing=existing,
            ready=int(status.get("readyReplicas", 0)),
            seen=seen,
            uniform=existing == updated,
            cause=worst_cause(pods),
        )
    return found


def pod_template(workload: Object) -> Object:
    """Template of the pods that answer: a Deployment's, or that of a group's leader."""
    spec = workload["spec"]
    template: Object = (
        spec["leaderWorkerTemplate"]["leaderTemplate"] if "leaderWorkerTemplate" in spec else spec["template"]
    )
    return template


@dataclass(frozen=True, slots=True)
class Selection:
    """What the Service selects. `label` None with `exists`: all engines of the model."""

    exists: bool
    label: str | None = None

    def covers(self, label: str) -> bool:
        """Whether an engine's ready pods get requests."""
        return self.exists and self.label in (None, label)


NOT_EXPOSED = Selection(exists=False)
"""There is no Service yet."""


def selection(snapshot: ModelSnapshot) -> Selection:
    """Read from the Service itself: nothing is remembered elsewhere."""
    service = snapshot.service
    if service is None or service["metadata"].get("deletionTimestamp"):
        return NOT_EXPOSED
    return Selection(True, service.get("spec", {}).get("selector", {}).get(LABEL_ARTIFACT))
