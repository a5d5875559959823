"""Plays the kubelet: builders and servers that behave as a test says, told through the statuses of their pods."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.identity import canonical_json
from enginewright_api.outcome import BuildOutcome
from enginewright_api.recipe import BuildRequest
from enginewright_cluster.port import CONFIG_MAP, POD, Cluster, NotFoundError, Object, Ref
from enginewright_operator.core.drift import covers

NOW = "2026-01-01T00:00:00Z"

PodStatus = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One builder that is asked for: what it is to build and measure, and how often it was tried before."""

    key: str
    request_digest: str
    format: str
    number: int
    memory: str
    backend: str = ""
    method: str = ""
    removed: bool = False
    accelerator_class: str = ""
    document: Object = field(default_factory=dict)
    """What the builder is given."""

    @property
    def request(self) -> BuildRequest:
        """Likewise, parsed as it parses it."""
        return BuildRequest.model_validate(self.document)


Builder = Callable[[Attempt], BuildOutcome | PodStatus | None]
"""The report of a builder, or the whole status of a pod that could not report; None while it is at work."""

Server = Callable[[Object], PodStatus]
"""Status of a serving pod."""


def ready_server(pod: Object) -> PodStatus:
    """Admitted, loaded, answering."""
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": NOW}],
        "containerStatuses": [_container("server", {"running": {"startedAt": NOW}}, ready=True)],
    }


def refusing_admission(reason: str, message: str) -> Server:
    """A server whose artifact is not let in: the init container ends with exit code 20 and says why."""

    def status(pod: Object) -> PodStatus:
        text = json.dumps({"class": "Deterministic", "reason": reason, "message": message})
        ended = {"exitCode": 20, "reason": "Error", "message": text}
        admit = _container("admit", {"waiting": {"reason": "CrashLoopBackOff"}}, last={"terminated": ended})
        return {"phase": "Pending", "conditions": [], "initContainerStatuses": [admit]}

    return status


def crashing_server(pod: Object) -> PodStatus:
    """A server that ends again and again."""
    ended = {"exitCode": 1, "reason": "Error", "message": "ServerDied: the server ended with signal 11"}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": NOW}],
        "containerStatuses": [_container("server", waiting, last={"terminated": ended})],
    }


def unschedulable(pod: Object) -> PodStatus:
    """No node has room."""
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    return {"phase": "Pending", "conditions": [{**said, "lastTransitionTime": NOW}]}


def killed_for_memory() -> PodStatus:
    """A builder that the kernel killed."""
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": NOW, "finishedAt": NOW}
    return {"phase": "Failed", "containerStatuses": [_container("builder", {"terminated": ended})]}


def evicted() -> PodStatus:
    """A builder whose node ran out of something."""
    return {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}


@dataclass
class Kubelet:
    """Sets the statuses of all pods of one namespace."""

    cluster: Cluster
    builder: Builder
    server: Server = ready_server
    namespace: str = "default"
    attempts: list[Attempt] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    async def step(self) -> bool:
        """Whether anything was written."""
        moved = False
        for pod in await self.cluster.list(POD, namespace=self.namespace):
            if pod["metadata"].get("deletionTimestamp"):
                continue
            component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component")
            if component == "builder":
                with contextlib.suppress(NotFoundError):  # its recipe may have gone since it was listed
                    moved |= await self._builder(pod)
            elif component in ("server", "worker"):
                moved |= await self._set(pod, self.server(pod))
        return moved

    async def _builder(self, pod: Object) -> bool:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return False
        attempt = await self._attempt(pod)
        if pod["metadata"]["name"] not in self._known:
            self._known.add(pod["metadata"]["name"])
            self.attempts.append(attempt)
        reported = self.builder(attempt)
        if reported is None:
            running = {"phase": "Running", "containerStatuses": [_container("builder", {"running": {}}, ready=True)]}
            return await self._set(pod, running)
        return await self._set(pod, _ended(reported) if isinstance(reported, BuildOutcome) else reported)

    async def _attempt(self, pod: Object) -> Attempt:
        spec = pod["spec"]
        name = next(volume["configMap"]["name"] for volume in spec["volumes"] if volume["name"] == "recipe")
        recipe = await self.cluster.get(Ref(CONFIG_MAP, name, self.namespace))
        request = json.loads(recipe["data"]["recipe.json"])
        labels = pod["metadata"]["labels"]
        quantization = request["recipe"].get("quantization") or {"format": "None"}
        return Attempt(
            key=request["key"],
            request_digest=_digest(request["evidence"]),
            format=quantization["format"],
            number=int(labels["enginewright.io/attempt"]),
            memory=spec["containers"][0]["resources"]["limits"]["memory"],
            backend=request["recipe"]["backend"],
            method=quantization.get("method", ""),
            removed=any(block in request["recipe"] for block in ("distillation", "pruning", "lowRank")),
            accelerator_class=request["accelerator"]["acceleratorClass"],
            document=request,
        )

    async def _set(self, pod: Object, status: PodStatus) -> bool:
        present = pod.get("status", {})
        rest = {key: value for key, value in status.items() if key != "conditions"}
        if covers(present, rest) and all(_has(present, condition) for condition in status.get("conditions", [])):
            return False
        metadata = pod["metadata"]
        ref = Ref(POD, metadata["name"], metadata["namespace"])
        with contextlib.suppress(NotFoundError):  # its owner may have gone since it was listed
            await self.cluster.patch_status(ref, status, uid=metadata["uid"])
        return True


def _has(status: PodStatus, wanted: Object) -> bool:
    found = status.get("conditions", [])
    return any((item["type"], item["status"]) == (wanted["type"], wanted["status"]) for item in found)


def _digest(evidence: Object) -> str:
    return EvidenceRequest.model_validate(evidence).digest


def _ended(outcome: BuildOutcome) -> PodStatus:
    exit_code = 0 if outcome.failure is None else outcome.failure.exit_code or 1
    message = canonical_json(outcome.wire()).decode()
    terminated = {
        "exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message,
        "startedAt": NOW, "finishedAt": NOW,
    }  # fmt: skip
    return {
        "phase": "Failed" if exit_code else "Succeeded",
        "containerStatuses": [_container("builder", {"terminated": terminated})],
    }


def _container(name: str, state: Object, *, ready: bool = False, last: Object | None = None) -> Object:
    return {
        "name": name, "image": "x", "imageID": "x", "restartCount": 0, "ready": ready, "started": ready, "state": state,
        **({"lastState": last} if last else {}),
    }  # fmt: skip
