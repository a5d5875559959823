"""How far a rollout is, whether it has stopped moving, and what stops it."""

from __future__ import annotations

from dataclasses import replace

from enginewright_api.errors import FailureClass
from enginewright_api.optimized_model import LastFailure

from .conditions import FALSE, UNKNOWN, in_transition, is_false, is_true, seconds_since
from .draft import Draft, Target
from .effects import RequeueAfter
from .engines import Running
from .pod_causes import Cause

ROLLED_OUT = "RolledOut"
_EXCEEDED = "ProgressDeadlineExceeded"


def progress(
    draft: Draft, target: Target, present: Running | None, *, at_rest: bool, lacking: str | None = None
) -> Draft:
    """Sets RolledOut. `at_rest`: requests go to the target only and nothing is left to change.

    `lacking` says what the nodes have too little of for the replicas that are to come.
    """
    assert draft.spec is not None  # noqa: S101 - checked by the rollout
    wanted, ready = draft.spec.replicas, present.ready if present is not None else 0
    if at_rest and present is not None and _is_deployed(present, wanted, held=_held_before(draft, target)):
        return replace(draft, settled=True).found(ROLLED_OUT, is_true("Complete", f"{target.rung.title} serves"))
    cause = present.cause if present is not None else None
    line = f"{ready} of {wanted} replicas of {target.rung.title} ready" + (f"; {cause.line}" if cause else "")
    line += f"; {lacking}" if lacking and ready < wanted else ""
    if cause is not None and cause.failure_class is FailureClass.DETERMINISTIC and ready == 0:
        return failed(draft, cause.reason, line, cause)
    left = _left_seconds(draft, target, present)
    if left <= 0 and ready < wanted:
        limit = draft.spec.rollout.progress_deadline_seconds
        return failed(draft, _EXCEEDED, f"no progress for {limit} s: {line}", cause)
    no_room = (cause is not None and cause.reason == "Unschedulable") or (lacking and ready < wanted)
    reason = "InsufficientCapacity" if no_room else "Progressing"
    draft = draft.found(ROLLED_OUT, in_transition(reason, line))
    return draft.doing(RequeueAfter(left)) if left > 0 else draft


def failed(draft: Draft, reason: str, message: str, cause: Cause | None) -> Draft:
    """RolledOut is False, with the root cause in the status."""
    failure = LastFailure(
        stage="Rollout",
        reason=cause.reason if cause is not None else reason,
        message=cause.message if cause is not None and cause.message else message,
        exit_code=cause.exit_code if cause is not None else None,
        time="",
    )
    return replace(draft, failure=failure).found(ROLLED_OUT, is_false(reason, message))


def _is_deployed(present: Running, wanted: int, *, held: bool) -> bool:
    """Once it held, more or fewer replicas and pods that come back are no rollout."""
    return present.uniform and (held or (present.seen and present.ready >= wanted))


def _held_before(draft: Draft, target: Target) -> bool:
    """Whether this very engine had been fully deployed: later trouble with its pods is not a rollout."""
    status = draft.snapshot.status()
    held = any(item.type == ROLLED_OUT and item.status == "True" for item in status.conditions)
    return held and status.target is not None and status.target.artifact_digest == target.artifact.digest


def _left_seconds(draft: Draft, target: Target, present: Running | None) -> float:
    """Seconds until the progress deadline, counted from the last sign of progress."""
    assert draft.spec is not None  # noqa: S101 - checked by the rollout
    status = draft.snapshot.status()
    limit = float(draft.spec.rollout.progress_deadline_seconds)
    old = next((item for item in status.conditions if item.type == ROLLED_OUT), None)
    same = status.target is not None and status.target.artifact_digest == target.artifact.digest
    if old is None or present is None or not same:
        return limit
    if old.status is FALSE and old.reason == _EXCEEDED and old.observed_generation == draft.snapshot.generation:
        return 0.0
    conditions = {item["type"]: item for item in present.manifest.get("status", {}).get("conditions", [])}
    progressing = conditions.get("Progressing", {})
    if progressing.get("status") == "False" and progressing.get("reason") == _EXCEEDED:
        return 0.0
    stamps = [present.manifest["metadata"].get("creationTimestamp"), progressing.get("lastUpdateTime")]
    if old.status is UNKNOWN:
        stamps.append(old.last_transition_time)
    elapsed = [seconds for stamp in stamps if (seconds := seconds_since(stamp, draft.now)) is not None]
    return limit - min(elapsed) if elapsed and old.status is UNKNOWN else limit
