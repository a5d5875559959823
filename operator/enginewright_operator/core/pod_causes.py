"""Why a pod does not do what it should: one line, from the states that the kubelet and the scheduler report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from enginewright_api.errors import DeterministicError, FailureClass

from .effects import Object

_CREATION = ("CreateContainerConfigError", "CreateContainerError", "InvalidImageName", "RunContainerError")
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError")


@dataclass(frozen=True, slots=True)
class Cause:
    """Root cause of one pod's trouble."""

    reason: str
    message: str
    failure_class: FailureClass = FailureClass.TRANSIENT
    exit_code: int | None = None
    ended_at: str = ""
    """RFC 3339; of a container that ended."""

    @property
    def line(self) -> str:
        """`reason: message`."""
        return f"{self.reason}: {self.message}" if self.message else self.reason


def worst_cause(pods: Iterable[Object]) -> Cause | None:
    """The cause that says most: one that waiting cannot cure before one that it might."""
    causes = [cause for pod in pods if (cause := cause_of(pod)) is not None]
    order = (FailureClass.DETERMINISTIC, FailureClass.RESOURCE, FailureClass.TRANSIENT)
    return min(causes, key=lambda cause: (order.index(cause.failure_class), cause.reason == "NotReady"), default=None)


def cause_of(pod: Object) -> Cause | None:
    """None for a pod that is ready, or that has not been there long enough to be in trouble."""
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        return Cause(str(status["reason"]), str(status.get("message", "")))
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        cause = _container_cause(container)
        if cause is not None:
            return cause
    return _unschedulable(status) or _not_ready(status)


def _container_cause(container: Mapping[str, Any]) -> Cause | None:
    state = container.get("state", {})
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    if ended and (ended.get("exitCode", 0) != 0 or ended.get("reason") == "OOMKilled"):
        if "running" in state and container.get("ready", False):
            return None
        return termination_cause(str(container.get("name", "")), ended)
    waiting = state.get("waiting", {})
    reason = str(waiting.get("reason", ""))
    if reason in _IMAGE or reason in _CREATION or reason == "CrashLoopBackOff":
        named = "ImagePullFailed" if reason in _IMAGE else reason
        return Cause(named, f"container {container.get('name')}: {waiting.get('message', reason)}")
    return None


def termination_cause(container: str, ended: Mapping[str, Any]) -> Cause:
    """Cause of a container that ended badly; our programs leave a message that says why."""
    exit_code, at = int(ended.get("exitCode", 0)), str(ended.get("finishedAt") or "")
    if ended.get("reason") == "OOMKilled" or exit_code == 137:
        return Cause(
            "OutOfMemory", f"container {container} was killed for memory", FailureClass.RESOURCE, exit_code, at
        )
    text = str(ended.get("message", "")).strip()
    reason, message = _words(text)
    deterministic = exit_code == DeterministicError.exit_code
    failure_class = FailureClass.DETERMINISTIC if deterministic else FailureClass.TRANSIENT
    fallback = f"container {container} ended with exit code {exit_code}"
    return Cause(reason or str(ended.get("reason", "Error")), message or text or fallback, failure_class, exit_code, at)


def _words(text: str) -> tuple[str, str]:
    """Reason and message of a termination message: JSON with those fields, or `Reason: message`."""
    try:
        parsed = json.loads(text)
    except ValueError:
        head, separator, rest = text.partition(": ")
        return (head, rest) if separator and head.isalnum() and head[:1].isupper() else ("", text)
    if not isinstance(parsed, dict):
        return "", text
    failure = parsed.get("failure")
    inner = failure if isinstance(failure, dict) else parsed
    return str(inner.get("reason", "")), str(inner.get("message", ""))


def _unschedulable(status: Mapping[str, Any]) -> Cause | None:
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Cause("Unschedulable", str(condition.get("message", "no node fits")))
    return None


def _not_ready(status: Mapping[str, Any]) -> Cause | None:
    containers = status.get("containerStatuses", [])
    waiting = [item for item in containers if "running" in item.get("state", {}) and not item.get("ready", False)]
    if not waiting:
        return None
    return Cause("NotReady", f"container {waiting[0].get('name')} runs, but its readiness probe does not succeed yet")
