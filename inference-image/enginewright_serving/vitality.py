"""Decides from observations whether the server is ready and alive. Pure: times come in.

tritonserver says it is ready while its Python process is dead, so only answers count: our own probe's, or those to
real traffic (the success counter), which also vouch for a server too busy to answer the probe in time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

READY_FOR_SECONDS = 3.0
"""How long one answer keeps the server ready, where it is looked at each second."""

DEAD_AFTER_FAILURES = 5
"""Observations in a row without an answer, after the first answer, that mean it will not come back."""

LONGEST_EXECUTION_SECONDS = 120.0
"""A large batch on few or busy cores: nothing else is answered meanwhile, and nothing is wrong. Longer, it hangs."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One look: did the probe get an answer, and how many inferences have succeeded so far (None: not known).

    `gone`: the server itself says that the process running the model has ended. It never starts another.
    """

    at: float
    answered: bool
    successes: int | None
    detail: str = ""
    gone: bool = False
    working: bool = False
    """An execution was under way when it was looked at."""


@dataclass(frozen=True, slots=True)
class Vitality:
    """What the observations so far add up to."""

    last_answer_at: float | None = None
    successes: int = 0
    failures: int = 0
    detail: str = "starting"

    def after(self, seen: Observation) -> Vitality:
        """With one more observation."""
        successes = self.successes if seen.successes is None else seen.successes
        if seen.gone:
            return replace(self, failures=DEAD_AFTER_FAILURES, detail=seen.detail)
        if seen.answered or (self.last_answer_at is not None and successes > self.successes):
            return Vitality(last_answer_at=seen.at, successes=successes)
        silent_seconds = 0.0 if self.last_answer_at is None else seen.at - self.last_answer_at
        if seen.working and silent_seconds <= LONGEST_EXECUTION_SECONDS:
            # Soon not ready for more, but no step nearer to death.
            return replace(self, successes=successes, detail=f"busy for {silent_seconds:.0f} s")
        failures = self.failures + 1 if self.last_answer_at is not None else 0
        return replace(self, successes=successes, failures=failures, detail=seen.detail)

    @property
    def started(self) -> bool:
        """Whether it ever answered."""
        return self.last_answer_at is not None

    @property
    def dead(self) -> bool:
        """Whether it answered once and has stopped doing so for good."""
        return self.failures >= DEAD_AFTER_FAILURES

    def ready(self, now: float, *, within: float = READY_FOR_SECONDS) -> bool:
        """Whether it answered recently and has not failed since."""
        return self.last_answer_at is not None and self.failures < 2 and now - self.last_answer_at <= within
