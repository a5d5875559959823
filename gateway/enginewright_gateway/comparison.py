"""What the stable engine and its canary answered in one window of traffic: the figures that the guard is held against.

Counts begin at zero with every window (a step of the canary), for both versions at the same moment. So whoever reads
them needs no memory, and a gateway that restarts has fewer of them, never wrong ones.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from enginewright_api.metrics import CANARY_BUCKETS_SECONDS

STABLE, CANARY = "stable", "canary"


@dataclass(slots=True)
class Tally:
    """Requests that one version ended."""

    requests: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Sum over the successful ones."""
    buckets: list[int] = field(default_factory=lambda: [0] * (len(CANARY_BUCKETS_SECONDS) + 1))
    """Successful requests by time; the last one has no upper bound."""

    def succeeded(self, seconds: float) -> None:
        """An answer came, after so long."""
        self.requests += 1
        self.seconds += seconds
        self.buckets[bisect.bisect_left(CANARY_BUCKETS_SECONDS, seconds)] += 1

    def failed(self) -> None:
        """No answer came, or one that says that the server is at fault."""
        self.requests += 1
        self.failures += 1


@dataclass(slots=True)
class Comparison:
    """Both versions over one window."""

    window: str
    stable: Tally = field(default_factory=Tally)
    canary: Tally = field(default_factory=Tally)

    def versions(self) -> tuple[tuple[str, Tally], tuple[str, Tally]]:
        """With their names in metrics."""
        return (STABLE, self.stable), (CANARY, self.canary)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A server's answer to a request; it counts once the request's code is known."""

    tally: Tally
    seconds: float


def count(attempts: Sequence[Attempt], code: str) -> None:
    """Count the answers to one request by its HTTP status. What the caller did wrong says nothing of the engine."""
    if code.startswith("2"):
        for attempt in attempts:
            attempt.tally.succeeded(attempt.seconds)
    elif code.startswith("5") and len(attempts) == 1:
        # An error that was passed on, or an answer of no use. One of several answers is nobody's fault for certain.
        attempts[0].tally.failed()
