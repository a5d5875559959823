"""Step by step from no requests to all: where a canary stands next. Missing figures never promote, they only delay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from enginewright_api.errors import FailureClass
from enginewright_api.operation_spec import Canary, Rollout
from enginewright_api.rollout_status import RolloutState, RolloutStatus

from .conditions import rfc3339, seconds_since
from .engines import Running
from .guard import Judgement, Verdict, judge
from .rollout_sizes import canary_replicas, canary_weight
from .traffic import Traffic

CHECK_SECONDS = 10.0
"""How often the figures are looked at, and told in the status."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a canary at one visit."""

    rollout: Rollout
    wanted: int
    present: Running | None
    traffic: Traffic | None
    now: datetime

    @property
    def canary(self) -> Canary:
        """The steps."""
        assert self.rollout.canary is not None  # noqa: S101 - checked by the rollout
        return self.rollout.canary

    @property
    def ready(self) -> int:
        """Ready replicas of the canary."""
        return self.present.ready if self.present is not None else 0


def advance(record: RolloutStatus, look: Look) -> RolloutStatus:
    """The record after this visit: the same one while there is nothing to do but wait."""
    if seconds_since(record.since, look.now) is None:  # the clock was set back: the step begins anew
        record = record.model_copy(update={"since": rfc3339(look.now)})
    if crash := _crash(record, look):
        return taken_back(record, crash, look.now)
    judgement = _judgement(record, look)
    if judgement.verdict is Verdict.BREACHED:
        return taken_back(record, judgement.message, look.now)
    number = min(record.step, len(look.canary.steps) - 1)
    step, waited = look.canary.steps[number], seconds_since(record.since, look.now) or 0.0
    limit = look.rollout.progress_deadline_seconds
    if record.weight != step.weight:
        return _entering(record, look, step.weight, waited)
    if waited >= step.seconds and judgement.verdict is Verdict.PASSED and look.ready >= _needed(look, step.weight):
        return _passed(record, look, number, judgement)
    if waited >= step.seconds + limit:
        return taken_back(record, f"no proof within {limit} s after the step: {judgement.message}", look.now)
    return _told(record, judgement, look.now)


def taken_back(record: RolloutStatus, why: str, now: datetime) -> RolloutStatus:
    """No requests from now on; not tried again with this spec."""
    at = f"at {record.weight}% of the requests: " if record.weight else ""
    return record.model_copy(
        update={"state": RolloutState.ROLLED_BACK, "weight": 0, "since": rfc3339(now), "message": f"{at}{why}"}
    )


def sentence(record: RolloutStatus, look: Look) -> str:
    """Where it stands, in words that stay the same while it waits: every change is a write."""
    number = min(record.step, len(look.canary.steps) - 1)
    step = look.canary.steps[number]
    which = f"step {number + 1} of {len(look.canary.steps)}"
    told = f"; {record.message}" if record.message else ""
    if record.weight != step.weight:
        ready = f"{look.ready} of {_needed(look, step.weight)} replicas ready for {step.weight}% of the requests"
        return f"{which}: {ready}, {record.weight}% now{told}"
    return f"{which}: {record.weight}% of the requests for {step.seconds} s since {record.since}{told}"


def next_look_seconds(record: RolloutStatus, look: Look) -> float:
    """When to look again though nothing may happen until then."""
    step = look.canary.steps[min(record.step, len(look.canary.steps) - 1)]
    waited = seconds_since(record.since, look.now) or 0.0
    limit = look.rollout.progress_deadline_seconds
    ends = limit if record.weight != step.weight else step.seconds
    left = ends - waited if waited < ends else ends + limit - waited
    return max(1.0, min(left, CHECK_SECONDS) if look.rollout.guard is not None and record.weight else left)


def _crash(record: RolloutStatus, look: Look) -> str | None:
    """A container that ended while it got requests, or one that cannot ever begin."""
    cause = look.present.cause if look.present is not None else None
    if cause is None:
        return None
    hopeless = cause.failure_class is FailureClass.DETERMINISTIC and look.ready == 0
    crashed = cause.exit_code is not None and record.weight > 0 and not _before(cause.ended_at, record.since)
    return cause.line if hopeless or crashed else None


def _before(ended_at: str, since: str) -> bool:
    """Whether a container ended before this share of the requests: a pod tells its last end for as long as it lives."""
    try:
        return bool(ended_at) and datetime.fromisoformat(ended_at) < datetime.fromisoformat(since)
    except (ValueError, TypeError):
        return False


def _judgement(record: RolloutStatus, look: Look) -> Judgement:
    if look.rollout.guard is None or record.weight == 0:
        return Judgement(Verdict.PASSED, "")
    return judge(look.traffic, record.window, look.rollout.guard, weight=record.weight)


def _needed(look: Look, weight: int) -> int:
    return canary_replicas(look.wanted, weight)


def _entering(record: RolloutStatus, look: Look, wanted_weight: int, waited: float) -> RolloutStatus:
    """More requests as soon as more replicas can take them."""
    weight = canary_weight(look.wanted, wanted_weight, look.ready)
    if look.ready and (weight == wanted_weight or weight > record.weight):
        return record.model_copy(update={"weight": weight, "since": rfc3339(look.now), "checked": "", "message": ""})
    limit = look.rollout.progress_deadline_seconds
    if waited < limit:
        return record
    cause = look.present.cause if look.present is not None else None
    ready = f"{look.ready} of {_needed(look, wanted_weight)} replicas of the canary are ready"
    return taken_back(record, f"no progress for {limit} s: {ready}" + (f"; {cause.line}" if cause else ""), look.now)


def _passed(record: RolloutStatus, look: Look, number: int, judgement: Judgement) -> RolloutStatus:
    last = number + 1 == len(look.canary.steps)
    onward = {"state": RolloutState.PROMOTED} if last else {"step": number + 1}
    return record.model_copy(
        update={**onward, "since": rfc3339(look.now), "checked": "", "message": judgement.message if last else ""}
    )


def _told(record: RolloutStatus, judgement: Judgement, now: datetime) -> RolloutStatus:
    """With new figures, but not more often than anybody reads them: each is a write."""
    since = seconds_since(record.checked, now)
    if judgement.message == record.message or (since is not None and 0 <= since < CHECK_SECONDS):
        return record
    return record.model_copy(update={"checked": rfc3339(now), "message": judgement.message})
