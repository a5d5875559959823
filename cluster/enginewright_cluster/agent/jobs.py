"""What a Job needs next: its one pod, another after a failure, its end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..objects.metadata import timestamp
from ..port import Object
from .conditions import with_condition
from .pods import condition, is_finished, is_leaving, is_ready, parse_time, phase

_DEFAULT_BACKOFF_LIMIT = 6
_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 360.0


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What to do now. `create` numbers the attempt; `remove` deletes the Job itself."""

    status: dict[str, Any]
    create: int | None = None
    delete: tuple[Object, ...] = ()
    remove: bool = False
    again_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _End:
    kind: str
    reason: str
    message: str
    status: dict[str, Any] = field(default_factory=dict)


def plan_job(job: Object, pods: Sequence[Object], now: datetime) -> JobPlan:
    """One pod at a time; parallel Jobs are refused with a condition, not run wrongly."""
    finished = condition(job, "Complete") or condition(job, "Failed")
    if finished is not None:
        return _after_the_end(job, finished, now)
    spec, before = job["spec"], job.get("status", {})
    active = [pod for pod in pods if not is_finished(pod) and not is_leaving(pod)]
    failed = [pod for pod in pods if phase(pod) == "Failed" and _policy(spec, pod) != "Ignore"]
    start = str(before.get("startTime") or timestamp(now))
    status: dict[str, Any] = {
        "startTime": start,
        "active": len(active),
        "ready": sum(is_ready(pod) for pod in active),
        "failed": len(failed),
        "succeeded": sum(phase(pod) == "Succeeded" for pod in pods),
    }
    if spec.get("suspend"):
        return JobPlan(status | {"active": 0}, delete=tuple(active))
    end, again = _end(spec, pods, failed, (now - parse_time(start)).total_seconds())
    if end is not None:
        return _ended(before, status, end, tuple(active), now)
    if active or any(is_leaving(pod) and not is_finished(pod) for pod in pods):
        return JobPlan(status, again_seconds=again)
    wait = _retry_wait_seconds(failed, now)
    if wait > 0:
        return JobPlan(status, again_seconds=wait if again is None else min(wait, again))
    return JobPlan(status | {"active": 1}, create=len(pods), again_seconds=again)


def _end(
    spec: Mapping[str, Any], pods: Sequence[Object], failed: Sequence[Object], elapsed_seconds: float
) -> tuple[_End | None, float | None]:
    """How the Job has ended, or else the seconds after which its deadline will have passed."""
    if int(spec.get("completions") or 1) != 1 or int(spec.get("parallelism") or 1) != 1:
        return _End("Failed", "NotSupported", "spec.completions, spec.parallelism: only 1 runs on a local node"), None
    if any(phase(pod) == "Succeeded" for pod in pods):
        return _End("Complete", "CompletionsReached", "the pod ended with exit code 0"), None
    for pod in failed:
        if _policy(spec, pod) == "FailJob":
            message = f"pod {pod['metadata']['name']} failed in a way that podFailurePolicy does not retry"
            return _End("Failed", "PodFailurePolicy", message), None
    limit = int(spec.get("backoffLimit", _DEFAULT_BACKOFF_LIMIT))
    if len(failed) > limit:
        message = f"{len(failed)} pod(s) failed; backoffLimit is {limit}"
        return _End("Failed", "BackoffLimitExceeded", message), None
    return _deadline(spec.get("activeDeadlineSeconds"), elapsed_seconds)


def _deadline(deadline: float | None, elapsed_seconds: float) -> tuple[_End | None, float | None]:
    if deadline is None:
        return None, None
    if elapsed_seconds >= float(deadline):
        return _End("Failed", "DeadlineExceeded", f"it ran for longer than {deadline} s"), None
    return None, float(deadline) - elapsed_seconds


def _ended(
    before: Mapping[str, Any], status: dict[str, Any], end: _End, active: tuple[Object, ...], now: datetime
) -> JobPlan:
    conditions = with_condition(before.get("conditions") or (), end.kind, True, end.reason, end.message, now=now)
    done = {"completionTime": timestamp(now)} if end.kind == "Complete" else {}
    failed = status["failed"] + (len(active) if end.reason == "DeadlineExceeded" else 0)
    return JobPlan(status | {"active": 0, "ready": 0, "failed": failed, "conditions": conditions} | done, delete=active)


def _after_the_end(job: Object, finished: Mapping[str, Any], now: datetime) -> JobPlan:
    status = dict(job.get("status", {}))
    seconds = job["spec"].get("ttlSecondsAfterFinished")
    if seconds is None:
        return JobPlan(status)
    left = float(seconds) - (now - parse_time(str(finished["lastTransitionTime"]))).total_seconds()
    return JobPlan(status, remove=left <= 0, again_seconds=left if left > 0 else None)


def _retry_wait_seconds(failed: Sequence[Object], now: datetime) -> float:
    """A cluster begins at 10 s; here 1 s, doubling."""
    ends = [parse_time(text) for pod in failed if (text := _finished_at(pod))]
    if not ends:
        return 0.0
    delay = min(_RETRY_SECONDS * 2.0 ** (len(failed) - 1), _MAX_RETRY_SECONDS)
    return float(delay) - (now - max(ends)).total_seconds()


def _containers(pod: Object) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _finished_at(pod: Object) -> str | None:
    times = [
        str(item["state"]["terminated"]["finishedAt"]) for item in _containers(pod) if "terminated" in item["state"]
    ]
    return max(times, default=None)


def _policy(spec: Mapping[str, Any], pod: Object) -> str:
    """Action of the first rule of podFailurePolicy that fits a failed pod; `Count` without one."""
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        if _fits(rule, pod):
            return str(rule["action"])
    return "Count"


def _fits(rule: Mapping[str, Any], pod: Object) -> bool:
    codes = rule.get("onExitCodes")
    if codes is not None:
        wanted, name = set(codes["values"]), codes.get("containerName")
        found = {
            item["state"]["terminated"]["exitCode"]
            for item in _containers(pod)
            if "terminated" in item["state"] and name in (None, item["name"])
        } - {0}
        return bool(found & wanted) if codes["operator"] == "In" else bool(found - wanted)
    return any(
        (present := condition(pod, wanted["type"])) is not None and present["status"] == wanted.get("status", "True")
        for wanted in rule.get("onPodConditions") or ()
    )
