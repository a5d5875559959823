"""What the gateways counted of a stable engine and its canary, over the same window of traffic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from enginewright_api.metrics import CANARY_BUCKETS_SECONDS

Z_95 = 1.6448536269514722
"""Standard normal quantile of a one-sided 95 % bound."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Requests that one version ended."""

    requests: int = 0
    failures: int = 0
    buckets: tuple[int, ...] = (0,) * (len(CANARY_BUCKETS_SECONDS) + 1)
    """Successful requests by time, at `CANARY_BUCKETS_SECONDS`; the last one has no upper bound."""

    def __add__(self, other: Answers) -> Answers:
        buckets = tuple(one + two for one, two in zip(self.buckets, other.buckets, strict=True))
        return Answers(self.requests + other.requests, self.failures + other.failures, buckets)

    @property
    def failure_rate(self) -> float:
        """Share of failed requests; 0 without requests."""
        return self.failures / self.requests if self.requests else 0.0

    @property
    def timed(self) -> int:
        """Requests whose time is known: the successful ones."""
        return sum(self.buckets)

    def p95_seconds(self, *, sigmas: float = 0.0) -> float:
        """95th percentile, or with `sigmas` the bound of its confidence interval on that side; infinite past the data.

        The number of requests below a quantile is binomial, so its bounds are order statistics (David and Nagaraja,
        Order Statistics, 7.1), here by the normal approximation. Within a bucket times are taken as evenly spread.
        """
        rank = self.timed * 0.95 + sigmas * math.sqrt(self.timed * 0.95 * 0.05)
        if rank > self.timed or not self.timed:
            return math.inf
        below = 0
        for place, count in enumerate(self.buckets[:-1]):
            if count and below + count >= rank:
                low = CANARY_BUCKETS_SECONDS[place - 1] if place else 0.0
                return low + (CANARY_BUCKETS_SECONDS[place] - low) * max(0.0, rank - below) / count
            below += count
        return math.inf

    def failure_rate_at_least(self) -> float:
        """Lower 95 % bound of the failure rate (Wilson, Journal of the American Statistical Association 22, 1927)."""
        if not self.failures:
            return 0.0
        n, rate, z = self.requests, self.failure_rate, Z_95
        margin = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        return max(0.0, (rate + z * z / (2 * n) - margin) / (1 + z * z / n))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Both versions over one window, as far as the gateways told."""

    window: str
    stable: Answers = Answers()
    canary: Answers = Answers()
    gateways: int = 0
    silent: Sequence[str] = ()
    """Gateways that did not answer, or that do not know of this window yet."""
