"""How a builder's Job stands: running, done with an outcome, or failed with a root cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import BuildOutcome, Failure

from .effects import Object
from .pod_causes import Cause, cause_of, termination_cause

LABEL_ATTEMPT = "enginewright.io/attempt"


@dataclass(frozen=True, slots=True)
class JobView:
    """One attempt."""

    name: str
    attempt: int
    finished: bool
    outcome: BuildOutcome | None = None
    """What the builder reported; None while it runs, or when it could not report."""
    failure: Failure | None = None
    waiting: str = ""
    """Why the pod does not run yet."""
    running: bool = False


def view_job(job: Object, pods: tuple[Object, ...], logs: Mapping[str, str]) -> JobView:
    """What job and pod say together; the builder's own word counts most."""
    metadata = job["metadata"]
    name, attempt = str(metadata["name"]), int(metadata.get("labels", {}).get(LABEL_ATTEMPT, "0"))
    pod = _pod_of(name, pods)
    outcome = None if pod is None else _outcome(pod)
    ended = {item["type"]: item for item in job.get("status", {}).get("conditions", []) if item.get("status") == "True"}
    if "Complete" in ended:
        failure = outcome.failure if outcome is not None else None
        return JobView(name, attempt, True, outcome, failure)
    if "Failed" in ended or "FailureTarget" in ended:
        reason = str((ended.get("Failed") or ended["FailureTarget"]).get("reason", ""))
        return JobView(name, attempt, True, outcome, _failure(reason, pod, outcome, logs))
    cause = None if pod is None else cause_of(pod)
    running = pod is not None and pod.get("status", {}).get("phase") == "Running"
    return JobView(name, attempt, False, running=running, waiting=cause.line if cause and not running else "")


def _pod_of(job_name: str, pods: tuple[Object, ...]) -> Object | None:
    """Newest pod of a Job."""
    mine = [
        pod
        for pod in pods
        if any(owner.get("name") == job_name for owner in pod["metadata"].get("ownerReferences", []))
        or pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") == job_name
        or pod["metadata"].get("labels", {}).get("job-name") == job_name
    ]
    return max(mine, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def _outcome(pod: Object) -> BuildOutcome | None:
    for container in pod.get("status", {}).get("containerStatuses", []):
        message = container.get("state", {}).get("terminated", {}).get("message", "")
        try:
            return BuildOutcome.model_validate_json(message) if message else None
        except ValidationError:
            return None
    return None


def _failure(reason: str, pod: Object | None, outcome: BuildOutcome | None, logs: Mapping[str, str]) -> Failure:
    if outcome is not None and outcome.failure is not None:
        failure = outcome.failure
        if failure.log_tail or pod is None:
            return failure
        return failure.model_copy(update={"log_tail": logs.get(pod["metadata"]["name"], "")})
    cause = _cause(reason, pod)
    return Failure(
        failure_class=cause.failure_class,
        stage="",
        reason=cause.reason,
        message=cause.message,
        exit_code=cause.exit_code,
        retryable=cause.failure_class is not FailureClass.DETERMINISTIC,
        log_tail="" if pod is None else logs.get(pod["metadata"]["name"], "")[-2000:],
    )


def _cause(reason: str, pod: Object | None) -> Cause:
    if pod is not None:
        status = pod.get("status", {})
        for container in status.get("containerStatuses", []):
            ended = container.get("state", {}).get("terminated")
            if ended and ended.get("exitCode", 0) != 0 and status.get("reason") is None:
                return termination_cause(str(container.get("name", "")), ended)
        if (cause := cause_of(pod)) is not None:
            return cause
    if reason == "DeadlineExceeded":
        return Cause("DeadlineExceeded", "the build did not end within its time; finished stages are kept")
    return Cause(reason or "BuilderLost", "the builder's pod is gone and left no message")
