"""What to do next about one evidence request of a build: wait, start an attempt, or give up. By class of failure.

Deterministic failures are never retried; running out of memory or disk once, with more; transient ones with back-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import Failure

from .conditions import seconds_since
from .job_outcomes import JobView
from .settings import BuildLimits

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Working:
    """An attempt is under way."""

    view: JobView


@dataclass(frozen=True, slots=True)
class Start:
    """Start the next attempt now."""

    memory_gib: float
    because: Failure | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """The next attempt may start after a pause."""

    seconds: float
    because: Failure


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing more will be tried."""

    because: Failure


Course = Working | Start | Later | GiveUp


def course(tries: Sequence[tuple[JobView, str | None]], limits: BuildLimits, now: datetime) -> Course:
    """`tries` are the attempts so far, oldest first, each with the time it ended (None: unknown)."""
    if not tries:
        return Start(limits.memory_gib)
    last = tries[-1][0]
    if not last.finished:
        return Working(last)
    failure = (last.failure or _lost()).model_copy(update={"attempts": len(tries)})
    if failure.failure_class is FailureClass.DETERMINISTIC:
        return GiveUp(failure)
    if failure.failure_class is FailureClass.RESOURCE:
        return _with_more(failure, [view for view, _ in tries], limits)
    return _again(failure, tries, limits, now)


def _again(failure: Failure, tries: Sequence[tuple[JobView, str | None]], limits: BuildLimits, now: datetime) -> Course:
    if len(tries) >= limits.attempts:
        return GiveUp(failure)
    ran_out = any(_ran_out(view) for view, _ in tries)
    memory_gib = min(limits.memory_most_gib, 2 * limits.memory_gib) if ran_out else limits.memory_gib
    pause = min(limits.retry_most_seconds, limits.retry_seconds * 2.0 ** (len(tries) - 1))
    waited = seconds_since(tries[-1][1], now)
    if waited is None or waited >= pause:
        return Start(memory_gib, failure)
    return Later(pause - waited, failure)


def _with_more(failure: Failure, views: list[JobView], limits: BuildLimits) -> Course:
    if sum(_ran_out(view) for view in views) > 1:
        return GiveUp(failure)
    wanted_gib = 2 * limits.memory_gib
    if failure.needs_memory_bytes is not None:
        wanted_gib = max(wanted_gib, 1.2 * failure.needs_memory_bytes / GIB)
    if limits.memory_gib >= limits.memory_most_gib or (
        failure.needs_memory_bytes is not None and failure.needs_memory_bytes / GIB > limits.memory_most_gib
    ):
        more = f"{failure.message}; builds may take at most {limits.memory_most_gib:g} GiB here"
        return GiveUp(failure.model_copy(update={"message": more, "retryable": False}))
    return Start(min(wanted_gib, limits.memory_most_gib), failure)


def _ran_out(view: JobView) -> bool:
    return view.failure is not None and view.failure.failure_class is FailureClass.RESOURCE


def _lost() -> Failure:
    return Failure(
        failure_class=FailureClass.TRANSIENT,
        reason="OutcomeLost",
        message="the builder ended without a report and the store has no artifact for the key",
        retryable=True,
    )
