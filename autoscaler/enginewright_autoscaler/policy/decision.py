"""What the policy answers, and what it remembers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from enginewright_api.optimized_model import ScalingState


class Reason(StrEnum):
    """Why this many replicas."""

    STEADY = "Steady"
    QUEUE_DEPTH = "QueueDepth"
    LATENCY = "Latency"
    LOAD_FELL = "LoadFell"
    STABILIZING = "Stabilizing"
    AT_MAXIMUM = "AtMaximum"
    OUT_OF_BOUNDS = "OutOfBounds"
    NO_READY_REPLICA = "NoReadyReplica"
    METRICS_MISSING = "MetricsMissing"
    METRICS_STALE = "MetricsStale"
    CAPACITY_LIMITED = "CapacityLimited"
    OBJECTIVE_INFEASIBLE = "ObjectiveInfeasible"


@dataclass(frozen=True, slots=True)
class Numbers:
    """The figures a decision rests on; None where nothing usable was measured."""

    current: int
    ready: float | None = None
    waiting: float | None = None
    running: float | None = None
    signal_age_seconds: float | None = None
    attained_share: float | None = None
    need_up: int | None = None
    need_down: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`replicas` is what spec.replicas should be, equal to the current number when nothing should change."""

    replicas: int
    reason: Reason
    state: ScalingState
    message: str
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class State:
    """Memory between decisions. Callers keep it and hand it back; they do not look inside."""

    covered_since: float | None = None
    """Needs were recorded without a gap since then; None before the first."""
    recorded_at: float | None = None
    needs: tuple[tuple[float, int], ...] = field(default=())
    """(time, need), the need strictly falling: only what can still be the largest of the window is kept."""
    infeasible_since: float | None = None
    ready: float | None = None
    ready_since: float = -math.inf
    """When the number of ready replicas last changed."""

    capacity_per_second: float | None = None
    """Requests that one replica was seen to answer a second; None until one was saturated."""
    capacity_at: float = -math.inf

    def recorded(self, now: float, need: int, *, window_seconds: float, gap_seconds: float) -> State:
        """With one more need; a gap or a clock that went back starts the window anew."""
        kept = tuple((at, old) for at, old in self.needs if now - window_seconds <= at <= now and old > need)
        broken = self.recorded_at is None or not 0 <= now - self.recorded_at <= gap_seconds
        since = now if broken or self.covered_since is None else self.covered_since
        return replace(self, covered_since=since, recorded_at=now, needs=(*kept, (now, need)))

    def largest_need(self) -> int:
        """Over the window; 0 before anything was recorded."""
        return self.needs[0][1] if self.needs else 0

    def seen_ready(self, now: float, ready: float) -> State:
        """Note when the number of ready replicas changed: latencies from before say nothing about the present."""
        if self.ready == ready:
            return self
        return replace(self, ready=ready, ready_since=-math.inf if self.ready is None else now)

    def seen_rate(self, now: float, per_replica: float, *, saturated: bool, memory_seconds: float) -> State:
        """Learn what a replica carries: a saturated one shows it, and any one shows that it carries at least this.

        Not learnt while no replica was saturated: rates at low load say nothing about the capacity.
        """
        known = self.capacity_per_second if 0 <= now - self.capacity_at <= memory_seconds else None
        if known is None:
            rate = per_replica if saturated and per_replica > 0 else None
            return replace(self, capacity_per_second=rate, capacity_at=now if rate else -math.inf)
        at = now if saturated else self.capacity_at
        return replace(self, capacity_per_second=max(known, per_replica), capacity_at=at)

    def seen_infeasible(self, now: float, seen: bool) -> State:
        """Note since when the objectives look out of reach."""
        since = None if not seen else now if self.infeasible_since is None else min(self.infeasible_since, now)
        return replace(self, infeasible_since=since)
