"""Conditions: what each policy found, and how findings become the list in the status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from enginewright_api.meta import Condition, ConditionStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition as a policy sees it now."""

    status: ConditionStatus
    reason: str
    message: str = ""

    @property
    def holds(self) -> bool:
        """True, as opposed to False or Unknown."""
        return self.status is TRUE


def is_true(reason: str, message: str = "") -> Finding:
    """It is so."""
    return Finding(TRUE, reason, message)


def is_false(reason: str, message: str) -> Finding:
    """It is not so and will not become so by waiting alone."""
    return Finding(FALSE, reason, message)


def in_transition(reason: str, message: str) -> Finding:
    """Not yet known: something is under way."""
    return Finding(UNKNOWN, reason, message)


def rfc3339(moment: datetime) -> str:
    """As Kubernetes writes times: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


CLOCK_SKEW_SECONDS = 60.0
"""How far the clocks of a cluster's machines may differ."""


def seconds_since(stamp: str | None, now: datetime) -> float | None:
    """Seconds from an RFC 3339 stamp to `now`; None without a stamp that parses.

    None too for one so far in the future that a clock must have been set back: waiting for it would take as long as
    the clock was wrong.
    """
    if not stamp:
        return None
    try:
        seconds = (now - datetime.fromisoformat(stamp)).total_seconds()
    except ValueError:
        return None
    return seconds if seconds >= -CLOCK_SKEW_SECONDS else None


def merged(
    findings: Iterable[tuple[str, Finding]], previous: Iterable[Condition], *, generation: int, now: datetime
) -> list[Condition]:
    """The new list: lastTransitionTime moves only when a status flips, as metav1.Condition asks."""
    before = {condition.type: condition for condition in previous}
    conditions = []
    for type_, finding in findings:
        old = before.get(type_)
        flipped = old is None or old.status is not finding.status
        conditions.append(
            Condition(
                type=type_,
                status=finding.status,
                reason=finding.reason,
                message=finding.message[:4096],
                last_transition_time=rfc3339(now) if flipped or old is None else old.last_transition_time,
                observed_generation=generation,
            )
        )
    return conditions
