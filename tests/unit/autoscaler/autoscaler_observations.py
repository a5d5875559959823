"""Builders of observations for the policy's tests."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable

from enginewright_api.metrics import REQUEST_BUCKETS_SECONDS
from enginewright_autoscaler.policy import Distribution, Figure, Observation

NOW = 1_000_000.0
BOUNDS = (*REQUEST_BUCKETS_SECONDS, math.inf)


def distribution(latencies: Iterable[float], *, at: float = NOW, window_seconds: float = 30.0) -> Distribution:
    """Histogram of these latencies in the gateway's buckets."""
    counts = [0] * len(BOUNDS)
    total = 0.0
    for latency in latencies:
        counts[bisect_left(BOUNDS, latency)] += 1
        total += latency
    cumulative = tuple(float(sum(counts[: index + 1])) for index in range(len(counts)))
    return Distribution(BOUNDS, cumulative, total, window_seconds, at)


def observe(
    *,
    current: int = 1,
    waiting: float | None = 0.0,
    running: float | None = 0.0,
    ready: float | None = None,
    at: float = NOW,
    latencies: Iterable[float] | None = None,
    **more: object,
) -> Observation:
    """An observation in which everything was measured at `at`; None leaves a figure out."""

    def figure(value: float | None) -> Figure | None:
        return None if value is None else Figure(value, at)

    return Observation(
        current_replicas=current,
        waiting=figure(waiting),
        running=figure(running),
        ready=figure(current if ready is None else ready),
        starting=Figure(0, at),
        request_latency=None if latencies is None else distribution(latencies, at=at),
        **more,  # type: ignore[arg-type]
    )
