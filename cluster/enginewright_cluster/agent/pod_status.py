"""Status of a pod from the records of its containers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..objects.metadata import timestamp
from ..port import Object
from .names import NODE_ADDRESS

State = dict[str, Any]


@dataclass(slots=True)
class ContainerRecord:
    """What is known of one container."""

    name: str
    image: str = ""
    state: State = field(default_factory=lambda: {"waiting": {"reason": "PodInitializing"}})
    last_state: State = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False
    identity: str = ""

    @property
    def terminated(self) -> Mapping[str, Any] | None:
        """How it ended; None while it waits or runs."""
        found: Mapping[str, Any] | None = self.state.get("terminated")
        return found

    def waits(self, reason: str, message: str = "") -> None:
        """Not running, and why."""
        if "terminated" in self.state:
            self.last_state = self.state
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.ready = self.started = False

    def runs(self, now: datetime, pid: int) -> None:
        """A process began."""
        if "terminated" in self.state:
            self.last_state = self.state
        self.state = {"running": {"startedAt": timestamp(now)}}
        self.identity = f"process://{pid}"
        self.ready = self.started = False

    def ended(self, code: int, reason: str, message: str, now: datetime) -> None:
        """Its process ended."""
        began = self.state.get("running", {}).get("startedAt", timestamp(now))
        ended: State = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": timestamp(now)}
        self.state = {"terminated": ended | ({"message": message} if message else {})}
        self.ready = self.started = False

    def wire(self) -> Object:
        """As containerStatuses has it."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "containerID": self.identity,
            "state": self.state,
            "lastState": self.last_state,
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": self.started,
        }


def remembered(container: Mapping[str, Any], statuses: Sequence[Mapping[str, Any]], now: datetime) -> ContainerRecord:
    """Record of a container as its pod's status had it before the agent started; a process it had is gone."""
    record = ContainerRecord(str(container["name"]), str(container.get("image", "")))
    for status in statuses:
        if status["name"] == record.name:
            record.restarts = int(status.get("restartCount", 0))
            record.last_state = dict(status.get("lastState") or {})
            record.identity = str(status.get("containerID", ""))
            if "running" in (status.get("state") or {}):
                record.state = dict(status["state"])
                record.ended(143, "Error", "the node agent stopped", now)
                record.restarts += 1
            elif "terminated" in (status.get("state") or {}):
                record.state = dict(status["state"])
    return record


def phase_of(containers: Sequence[ContainerRecord], *, initialized: bool, final: bool) -> str:
    """`final`: nothing will be started again."""
    ended = [record.terminated for record in containers]
    if final:
        succeeded = all(end is not None and end["exitCode"] == 0 for end in ended)
        return "Succeeded" if succeeded and initialized else "Failed"
    begun = any("running" in record.state or record.terminated or record.last_state for record in containers)
    return "Running" if initialized and begun else "Pending"


def pod_status(
    pod: Object,
    init: Sequence[ContainerRecord],
    containers: Sequence[ContainerRecord],
    *,
    initialized: bool,
    final: bool,
    trouble: tuple[str, str] | None,
    unschedulable: str,
    now: datetime,
) -> dict[str, Any]:
    """The whole status. `trouble` is a reason and message for the pod itself; `unschedulable` why no process starts."""
    before = pod.get("status", {})
    phase = phase_of(containers, initialized=initialized, final=final)
    unready = [record.name for record in containers if not record.ready]
    said = f"containers with unready status: {', '.join(unready)}" if unready else ""
    done = phase == "Succeeded"
    reason = "PodCompleted" if done else "ContainersNotReady" if unready else ""
    entries = [
        ("PodScheduled", not unschedulable, "Unschedulable" if unschedulable else "", unschedulable),
        ("Initialized", initialized, "" if initialized else "ContainersNotInitialized", ""),
        ("ContainersReady", not unready, reason, said),
        ("Ready", not unready, reason, said),
    ]
    if trouble is not None:
        entries.append(("DisruptionTarget", True, "TerminationByKubelet", trouble[1]))
    return {
        "phase": phase,
        "reason": trouble[0] if trouble else None,
        "message": trouble[1] if trouble else None,
        "startTime": before.get("startTime") or timestamp(now),
        "podIP": NODE_ADDRESS,
        "hostIP": NODE_ADDRESS,
        "conditions": [_condition(before, *entry, now=now) for entry in entries],
        "initContainerStatuses": [record.wire() for record in init] or None,
        "containerStatuses": [record.wire() for record in containers],
    }


def _condition(
    before: Mapping[str, Any], kind: str, holds: bool, reason: str, message: str, *, now: datetime
) -> dict[str, Any]:
    status = "True" if holds else "False"
    since = timestamp(now)
    for entry in before.get("conditions") or ():
        if entry["type"] == kind and entry["status"] == status:
            since = entry["lastTransitionTime"]
    wanted = {"type": kind, "status": status, "lastTransitionTime": since}
    return wanted | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})
