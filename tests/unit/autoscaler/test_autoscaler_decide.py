"""The policy's answers, case by case."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.operation_spec import Scaling
from enginewright_api.optimized_model import ScalingState
from enginewright_autoscaler.policy import (
    Config,
    Decision,
    Figure,
    Observation,
    Pending,
    Reason,
    State,
    Tuning,
    config_of,
    decide,
)
from tests.unit.autoscaler.autoscaler_observations import NOW, distribution, observe

DEPTH = Config(minimum=1, maximum=8, queue_depth_per_replica=4)
LATENCY = Config(minimum=1, maximum=8, attainment=0.95, request_latency_seconds=0.1)
WINDOW = DEPTH.tuning.scale_down_window_seconds


def once(observation: Observation, config: Config = DEPTH, now: float = NOW) -> Decision:
    return decide(observation, State(), config, now)[0]


def watched(observation: Observation, config: Config = DEPTH, seconds: float = WINDOW) -> tuple[Decision, State]:
    """The answer after the same was seen every second for a while."""
    state, decision = State(), None
    for second in range(int(seconds) + 1):
        now = NOW + second
        decision, state = decide(moved(observation, now), state, config, now)
    assert decision is not None
    return decision, state


def moved(observation: Observation, at: float) -> Observation:
    """The same figures, measured at another time."""
    changes: dict[str, object] = {}
    for name in ("ready", "starting", "waiting", "running", "request_latency"):
        signal = getattr(observation, name)
        if signal is not None:
            changes[name] = replace(signal, at_seconds=at)
    return replace(observation, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("current", "load", "replicas", "reason"),
    [
        (1, 4, 1, Reason.STEADY),
        (1, 4.3, 1, Reason.STEADY),  # within the tolerance
        (1, 4.5, 2, Reason.QUEUE_DEPTH),
        (1, 12, 3, Reason.QUEUE_DEPTH),
        (1, 1000, 5, Reason.QUEUE_DEPTH),  # not further than ready + 4 at once
        (6, 1000, 8, Reason.QUEUE_DEPTH),
        (8, 1000, 8, Reason.AT_MAXIMUM),
        (3, 0, 3, Reason.STABILIZING),
    ],
)
def test_queue_depth_sets_the_count(current: int, load: float, replicas: int, reason: Reason) -> None:
    decision = once(observe(current=current, waiting=load / 2, running=load / 2))
    assert (decision.replicas, decision.reason) == (replicas, reason)


def test_the_answer_carries_the_figures() -> None:
    decision = once(observe(current=1, waiting=9, running=3))
    assert decision.message == "9.0 waiting and 3.0 running at 1 ready, objective 4 a replica: 1 to 3 replicas"
    assert (decision.numbers.waiting, decision.numbers.running, decision.numbers.need_up) == (9, 3, 3)


def test_growth_waits_for_replicas_that_start() -> None:
    decision = once(observe(current=5, ready=1, waiting=1000))
    assert (decision.replicas, decision.reason) == (5, Reason.STEADY)
    assert "1 ready" in decision.message


@pytest.mark.parametrize(("current", "replicas"), [(0, 2), (1, 2), (9, 6)])
@pytest.mark.parametrize("waiting", [0.0, None])
def test_bounds_hold_even_without_signals(current: int, replicas: int, waiting: float | None) -> None:
    config = replace(DEPTH, minimum=2, maximum=6)
    decision = once(observe(current=current, waiting=waiting), config)
    assert (decision.replicas, decision.reason) == (replicas, Reason.OUT_OF_BOUNDS)


BROKEN = {
    "missing": None,
    "not a number": Figure(math.nan, NOW),
    "infinite": Figure(math.inf, NOW),
    "negative": Figure(-1, NOW),
    "from the future": Figure(0, NOW + 30),
    "without a time": Figure(0, math.nan),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("signal", ["waiting", "running", "ready"])
def test_a_broken_signal_holds_the_count(signal: str, broken: Figure | None) -> None:
    _, state = watched(observe(current=5))
    decision, _ = decide(
        replace(observe(current=5), **{signal: broken}),  # type: ignore[arg-type]
        state,
        DEPTH,
        NOW,
    )
    assert (decision.replicas, decision.reason) == (5, Reason.METRICS_MISSING)
    assert decision.state is ScalingState.METRICS_MISSING
    assert signal.split("_", maxsplit=1)[0] in decision.message


@pytest.mark.parametrize(
    ("age", "load", "replicas", "state"),
    [
        (14, 20, 5, ScalingState.FRESH),
        (16, 19.9, 6, ScalingState.METRICS_STALE),  # 19.9 × 1.006 / 4 is more than 5
        (59, 20, 7, ScalingState.METRICS_STALE),
        (61, 400, 4, ScalingState.METRICS_STALE),
    ],
)
def test_stale_signals_inflate_then_hold(age: float, load: float, replicas: int, state: ScalingState) -> None:
    decision = once(observe(current=4, waiting=load, at=NOW - age))
    assert (decision.replicas, decision.state) == (replicas, state)


def test_stale_signals_never_scale_down() -> None:
    idle = observe(current=5)
    _, state = watched(idle)
    later = NOW + WINDOW + 20
    decision, _ = decide(moved(idle, later - 20), state, DEPTH, later)
    assert (decision.replicas, decision.reason) == (5, Reason.METRICS_STALE)


def test_scale_down_waits_for_the_window() -> None:
    idle = observe(current=5)
    assert watched(idle, seconds=WINDOW - 1)[0].reason is Reason.STABILIZING
    decision, _ = watched(idle)
    assert (decision.replicas, decision.reason) == (1, Reason.LOAD_FELL)


def test_scale_down_goes_to_the_largest_need_of_the_window() -> None:
    state, decision = State(), None
    for second in range(int(WINDOW) + 2):
        load = 9.0 if second == 100 else 0.0
        observation = observe(current=6, waiting=load, at=NOW + second)
        decision, state = decide(observation, state, DEPTH, NOW + second)
        if decision.replicas != 6:
            break
    assert decision is not None
    assert (decision.replicas, decision.reason) == (3, Reason.LOAD_FELL)  # 9 / (4 × 0.8)


def test_a_gap_starts_the_window_anew() -> None:
    idle = observe(current=5)
    _, state = watched(idle, seconds=WINDOW - 10)
    later = NOW + WINDOW + 60
    decision, state = decide(moved(idle, later), state, DEPTH, later)
    assert decision.reason is Reason.STABILIZING


def test_a_clock_that_goes_back_starts_the_window_anew() -> None:
    idle = observe(current=5)
    _, state = watched(idle)
    earlier = NOW + 10
    decision, _ = decide(moved(idle, earlier), state, DEPTH, earlier)
    assert decision.reason is Reason.STABILIZING


def test_down_only_with_margin() -> None:
    """12 requests at 4 a replica fill three replicas, but three would be at the objective: four stay."""
    assert watched(observe(current=4, running=12))[0].replicas == 4
    assert watched(observe(current=4, running=9.5))[0].replicas == 3


def test_a_saturated_replica_shows_what_it_carries() -> None:
    """10 a second saturate one; at 20 a second and three replicas, two would be saturated again."""

    def at(second: int, current: int, load: float, rate: float | None) -> Observation:
        figure = None if rate is None else Figure(rate, NOW + second)
        return observe(current=current, running=load, at=NOW + second, completions_per_second=figure)

    state, decision = State(), None
    for second in range(15):
        _, state = decide(at(second, 1, 8, 10), state, DEPTH, NOW + second)
    for second in range(15, 15 + 2 * int(WINDOW)):
        decision, state = decide(at(second, 3, 2, 20), state, DEPTH, NOW + second)
    assert decision is not None
    assert (decision.replicas, decision.numbers.need_down) == (3, 3)
    end = 15 + 2 * int(WINDOW)
    assert decide(at(end, 3, 2, None), state, DEPTH, NOW + end)[0].numbers.need_down == 3
    for second in range(end, end + int(WINDOW) + 1):
        decision, state = decide(at(second, 3, 1, 8), state, DEPTH, NOW + second)
    assert decision.replicas == 1


def test_what_was_learnt_is_forgotten() -> None:
    config = replace(DEPTH, tuning=Tuning(scale_down_window_seconds=20, capacity_memory_seconds=100))
    busy = observe(current=1, running=8, completions_per_second=Figure(10, NOW))
    _, state = decide(busy, State(), config, NOW)
    for second in range(1, 130):
        now = NOW + second
        light = observe(current=3, running=1, at=now, completions_per_second=Figure(20, now))
        decision, state = decide(light, state, config, now)
        if second < 100:
            assert decision.replicas == 3
    assert decision.replicas == 1


def test_no_ready_replica_changes_nothing() -> None:
    decision = once(observe(current=2, ready=0, waiting=50))
    assert (decision.replicas, decision.reason) == (2, Reason.NO_READY_REPLICA)


@pytest.mark.parametrize(
    ("latencies", "running", "replicas", "reason"),
    [
        ([0.05] * 300, 0.5, 2, Reason.STEADY),
        ([0.05] * 96 + [0.3] * 4, 0.5, 2, Reason.STEADY),  # 96 % is within chance of 95 % and above
        ([0.4] * 10, 8, 2, Reason.STEADY),  # too few to say
        ([0.4] * 600, 8, 6, Reason.LATENCY),
    ],
)
def test_latency_sets_the_count(latencies: list[float], running: float, replicas: int, reason: Reason) -> None:
    decision = once(observe(current=2, running=running, latencies=latencies), LATENCY)
    assert (decision.replicas, decision.reason) == (replicas, reason)


def test_a_latency_miss_from_before_new_replicas_does_not_count() -> None:
    slow = observe(current=2, running=8, latencies=[0.4] * 600)
    _, state = decide(slow, State(), LATENCY, NOW)
    grown = moved(replace(slow, current_replicas=6, ready=Figure(6, NOW)), NOW + 5)
    decision, state = decide(grown, state, LATENCY, NOW + 5)
    assert decision.replicas == 6
    decision, state = decide(moved(grown, NOW + 40), state, LATENCY, NOW + 40)
    assert (decision.replicas, decision.reason) == (8, Reason.LATENCY)


def test_latency_keeps_replicas_that_the_work_needs() -> None:
    """40 requests a second of 50 ms are two busy replicas; a 100 ms objective leaves each at most 3/8 busy."""
    busy = observe(current=8, running=2.7, latencies=[0.045] * 1200)
    decision, _ = watched(busy, LATENCY)
    assert decision.replicas > 3
    assert watched(observe(current=8, latencies=[]), LATENCY)[0].replicas == 1


@pytest.mark.parametrize("field", ["time_to_first_token", "time_between_tokens"])
def test_token_objectives_count_like_latency(field: str) -> None:
    config = Config(minimum=1, maximum=8, attainment=0.95, **{f"{field}_seconds": 0.05})
    missing = once(observe(current=2, running=8), config)
    assert missing.reason is Reason.METRICS_MISSING
    assert field.replace("_", " ") in missing.message
    seen = replace(observe(current=2, running=8), **{field: distribution([0.4] * 600)})
    assert once(seen, config).reason is Reason.LATENCY
    fast = replace(observe(current=2, running=1), **{field: distribution([0.004] * 600)})
    assert once(fast, config).replicas == 2


def test_pending_pods_limit_the_capacity() -> None:
    pending = Pending(2, NOW - 60, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    decision = once(observe(current=4, ready=2, waiting=100, pending=pending))
    assert (decision.replicas, decision.reason) == (4, Reason.CAPACITY_LIMITED)
    assert decision.state is ScalingState.CAPACITY_LIMITED
    assert "Insufficient nvidia.com/gpu" in decision.message
    young = once(observe(current=4, ready=2, waiting=100, pending=replace(pending, since_seconds=NOW - 5)))
    assert young.reason is Reason.QUEUE_DEPTH


def test_capacity_does_not_keep_replicas_that_nobody_needs() -> None:
    stuck = observe(current=4, ready=2, pending=Pending(2, NOW - 60, "full"))
    assert watched(stuck)[0].replicas == 1


def test_an_objective_out_of_reach_is_called_so() -> None:
    slow = observe(current=2, running=0.4, latencies=[0.4] * 600)
    decision, _ = watched(slow, LATENCY, seconds=61)
    assert decision.reason is Reason.OBJECTIVE_INFEASIBLE
    assert decision.state is ScalingState.OBJECTIVE_INFEASIBLE
    assert decision.replicas == 2
    assert "0.0 % of requests" in decision.message


def test_at_the_maximum_with_nobody_waiting_the_objective_is_out_of_reach() -> None:
    config = replace(LATENCY, maximum=3)
    decision, _ = watched(observe(current=3, running=2.5, latencies=[0.15] * 600), config, seconds=61)
    assert decision.reason is Reason.OBJECTIVE_INFEASIBLE
    overloaded, _ = watched(observe(current=3, running=60, latencies=[0.4] * 600), config, seconds=61)
    assert overloaded.reason is Reason.AT_MAXIMUM


def test_queue_depth_still_counts_when_latency_is_out_of_reach() -> None:
    config = replace(LATENCY, queue_depth_per_replica=4)
    _, state = watched(observe(current=2, running=0.4, latencies=[0.4] * 600), config, seconds=61)
    flood = observe(current=2, running=20, latencies=[0.4] * 600, at=NOW + 62)
    assert decide(flood, state, config, NOW + 62)[0].replicas >= 5


@pytest.mark.parametrize("mode", ["Manual", "External"])
def test_other_modes_are_not_ours(mode: str) -> None:
    objectives = None if mode == "Manual" else {"queueDepthPerReplica": 4}
    assert config_of(Scaling.model_validate({"mode": mode, "objectives": objectives}), Tuning()) is None


def test_config_comes_from_the_spec() -> None:
    scaling = Scaling.model_validate(
        {
            "mode": "Objectives",
            "minReplicas": 0,
            "maxReplicas": 7,
            "attainment": 0.9,
            "objectives": {
                "latencyMilliseconds": {"p95": 250},
                "timeToFirstTokenMilliseconds": {"p95": 300},
                "interTokenMilliseconds": {"p95": 50},
                "queueDepthPerReplica": 3,
            },
        }
    )
    tuning = Tuning(scale_down_window_seconds=60)
    assert config_of(scaling, tuning) == Config(1, 7, 0.9, 3, 0.25, 0.3, 0.05, tuning)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scale_down_window_seconds": 0}, "scale_down_window_seconds"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"scale_down_margin": 1.0}, "scale_down_margin"),
        ({"growth_step": 0}, "growth_step"),
        ({"stale_after_seconds": 90}, "hold_after_seconds"),
        ({"stale_after_seconds": 0}, "stale_after_seconds"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, float], field: str) -> None:
    with pytest.raises(DeterministicError, match=field):
        Tuning(**change)  # type: ignore[arg-type]
