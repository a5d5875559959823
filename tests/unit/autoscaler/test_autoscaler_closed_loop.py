"""The policy in a loop with a queue: a small discrete-event simulation in virtual time."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from enginewright_autoscaler.policy import Config, Figure, Observation, Reason, State, Tuning, decide
from tests.unit.autoscaler.autoscaler_observations import distribution


@dataclass
class Pool:
    """One line in front of replicas that serve one request at a time; a new replica takes a while to start."""

    service_seconds: float
    start_seconds: float
    replicas: int = 1
    ready_at: list[float] = field(default_factory=lambda: [0.0])
    line: list[float] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)
    ended: list[tuple[float, float]] = field(default_factory=list)

    def scale(self, replicas: int, now: float) -> None:
        """Start some, or drain the youngest."""
        self.ready_at += [now + self.start_seconds] * (replicas - self.replicas)
        self.ready_at = sorted(self.ready_at)[:replicas]
        self.replicas = replicas

    def ready(self, now: float) -> int:
        """Replicas that have started."""
        return bisect_right(self.ready_at, now)

    def advance(self, now: float, arrivals: list[float]) -> None:
        """Play everything up to `now`."""
        events = sorted(arrivals)
        while events or self.busy:
            end = self.busy[0][0] if self.busy else float("inf")
            at = min(end, events[0] if events else float("inf"))
            if at > now:
                break
            if at == end:
                _, arrived = heapq.heappop(self.busy)
                self.ended.append((at, at - arrived))
            else:
                self.line.append(events.pop(0))
            self._dispatch(at)
        self._dispatch(now)
        self.ended = [(at, latency) for at, latency in self.ended if at > now - 30]

    def _dispatch(self, at: float) -> None:
        while self.line and len(self.busy) < self.ready(at):
            heapq.heappush(self.busy, (at + self.service_seconds, self.line.pop(0)))


@dataclass
class Run:
    """What a simulation saw."""

    counts: list[int]
    reasons: list[Reason]
    waiting: list[int]

    @property
    def changes(self) -> list[int]:
        """Steps of the count, in order."""
        return [after - before for before, after in pairwise(self.counts) if after != before]


def simulate(rate_at, *, seconds: int, config: Config, pool: Pool, restart_at: int | None = None, seed: int = 1) -> Run:  # type: ignore[no-untyped-def]
    """One decision a second under Poisson arrivals."""
    chance, state, run = random.Random(seed), State(), Run([], [], [])  # noqa: S311 - a simulation
    gauges: list[tuple[int, int]] = []
    for second in range(1, seconds + 1):
        arrivals, at = [], float(second - 1)
        while rate_at(second) > 0 and (at := at + chance.expovariate(rate_at(second))) < second:
            arrivals.append(at)
        pool.advance(second, arrivals)
        gauges = [*gauges, (len(pool.line), len(pool.busy))][-5:]
        waiting, running = (sum(column) / len(gauges) for column in zip(*gauges, strict=True))
        observation = Observation(
            current_replicas=pool.replicas,
            ready=Figure(pool.ready(second), second),
            waiting=Figure(waiting, second),
            running=Figure(running, second),
            completions_per_second=Figure(sum(1 for at, _ in pool.ended if at > second - 10) / 10, second),
            request_latency=distribution([latency for _, latency in pool.ended], at=second),
        )
        if second == restart_at:
            state = State()
        decision, state = decide(observation, state, config, second)
        pool.scale(decision.replicas, second)
        run.counts.append(decision.replicas)
        run.reasons.append(decision.reason)
        run.waiting.append(len(pool.line))
    return run


def step(second: int) -> float:
    """20 requests a second for two minutes, before and after one in five seconds."""
    return 20.0 if 60 <= second < 180 else 0.2


DEMO = Tuning(scale_down_window_seconds=20)


def test_a_load_step_goes_one_to_three_to_one() -> None:
    """20 a second of 100 ms are two busy replicas; a third keeps the line short."""
    config = Config(1, 3, queue_depth_per_replica=2, tuning=DEMO)
    run = simulate(step, seconds=240, config=config, pool=Pool(0.1, 5))
    assert run.counts[58] == 1
    assert max(run.counts) == 3
    assert run.counts.index(3) < 60 + 15
    assert run.counts[-1] == 1
    assert max(run.waiting[100:180]) < 30
    turns = [change > 0 for change in run.changes]
    assert turns == sorted(turns, reverse=True), f"up and down again: {run.changes}"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "config",
    [
        Config(1, 8, queue_depth_per_replica=2),
        Config(1, 8, attainment=0.95, request_latency_seconds=0.3),
        Config(1, 8, attainment=0.95, request_latency_seconds=0.3, queue_depth_per_replica=3),
    ],
    ids=["depth", "latency", "both"],
)
def test_constant_load_does_not_thrash(config: Config, seed: int) -> None:
    run = simulate(lambda _: 25.0, seconds=1800, config=config, pool=Pool(0.1, 20), seed=seed)
    late = run.counts[900:]
    assert min(late) >= 3
    assert max(late) <= 6
    assert sum(1 for a, b in pairwise(late) if a != b) <= 2, late
    assert sum(run.waiting[900:]) / 900 < 10


def test_a_latency_objective_is_reached() -> None:
    config = Config(1, 8, attainment=0.95, request_latency_seconds=0.3)
    pool = Pool(0.1, 20)
    simulate(lambda _: 25.0, seconds=600, config=config, pool=pool)
    assert distribution([latency for _, latency in pool.ended]).share_within(0.3) >= 0.93


def test_an_impossible_objective_neither_thrashes_nor_takes_everything() -> None:
    config = Config(1, 50, attainment=0.95, request_latency_seconds=0.05)
    run = simulate(lambda _: 10.0, seconds=1500, config=config, pool=Pool(0.1, 20))
    assert run.counts[-1] <= 12
    assert len(set(run.counts[-600:])) == 1
    assert run.reasons[-1] is Reason.OBJECTIVE_INFEASIBLE


def test_a_restart_does_not_scale_down_before_it_has_seen_a_window() -> None:
    config = Config(1, 8, queue_depth_per_replica=2, tuning=DEMO)

    def quiet_spell(second: int) -> float:
        return 0.0 if second >= 140 else 25.0

    undisturbed = simulate(quiet_spell, seconds=200, config=config, pool=Pool(0.1, 5))
    restarted = simulate(quiet_spell, seconds=200, config=config, pool=Pool(0.1, 5), restart_at=158)
    before = undisturbed.counts[139]
    assert undisturbed.counts[170] == 1
    assert restarted.counts[158:176] == [before] * 18
    assert restarted.counts[-1] == 1
