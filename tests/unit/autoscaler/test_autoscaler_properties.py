"""What holds for every observation."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from enginewright_autoscaler.policy import (
    Config,
    Decision,
    Distribution,
    Figure,
    Observation,
    Pending,
    Reason,
    State,
    Tuning,
    decide,
)
from tests.unit.autoscaler.autoscaler_observations import BOUNDS, NOW, distribution, observe

TUNING = Tuning(scale_down_window_seconds=20)
counts = st.integers(0, 40)
loads = st.floats(0, 2000)
anything = st.floats(allow_nan=True, allow_infinity=True)
figures = st.none() | st.builds(Figure, anything, st.floats(NOW - 200, NOW + 200) | anything)
latencies = st.lists(st.floats(0.0005, 100), max_size=60)
bounds = st.tuples(st.integers(1, 20), st.integers(0, 30)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@st.composite
def configs(draw: st.DrawFn) -> Config:
    low, high = draw(bounds)
    depth, latency = draw(st.floats(0.1, 100) | st.none()), draw(st.floats(0.001, 10) | st.none())
    if depth is None and latency is None:
        depth = 4.0
    return Config(low, high, draw(st.floats(0.5, 0.999)), depth, latency, tuning=TUNING)


@st.composite
def distributions(draw: st.DrawFn) -> Distribution | None:
    kind = draw(st.sampled_from(["none", "good", "old", "bad"]))
    if kind == "none":
        return None
    good = distribution(draw(latencies))
    if kind == "old":
        return replace(good, at_seconds=draw(st.floats(NOW - 200, NOW + 200)))
    if kind == "bad":
        return replace(good, cumulative=tuple(draw(st.lists(anything, min_size=len(BOUNDS), max_size=len(BOUNDS)))))
    return good


pendings = st.none() | st.builds(Pending, st.integers(0, 5), st.floats(NOW - 100, NOW), st.just("no room"))
observations = st.builds(
    Observation,
    current_replicas=counts,
    ready=figures,
    starting=figures,
    waiting=figures,
    running=figures,
    request_latency=distributions(),
    pending=pendings,
)
sound = st.builds(observe, current=counts, waiting=loads, running=loads, latencies=latencies, pending=pendings)


def settled(config: Config, observation: Observation) -> State:
    """A memory that would allow any scale-down."""
    return State(
        covered_since=NOW - 1000,
        recorded_at=NOW - 1,
        needs=((NOW - 10, 0),),
        infeasible_since=None,
        ready=observation.ready.value if observation.ready else None,
    )


@given(observations | sound, configs())
def test_bounds_hold_for_anything(observation: Observation, config: Config) -> None:
    decision, _ = decide(observation, settled(config, observation), config, NOW)
    assert config.minimum <= decision.replicas <= config.maximum


@given(sound, configs(), st.sampled_from(["ready", "waiting", "running", "request_latency"]), st.data())
def test_never_down_on_broken_or_old_signals(
    observation: Observation, config: Config, signal: str, data: st.DataObject
) -> None:
    config = replace(config, request_latency_seconds=config.request_latency_seconds or 0.1)
    old = getattr(observation, signal)
    broken = data.draw(
        st.none()
        | st.sampled_from([NOW + 60, NOW - 15.5, NOW - 40, NOW - 61, NOW - 1e6, math.nan]).map(
            lambda at: replace(old, at_seconds=at)
        )
        | st.just(None if signal == "request_latency" else Figure(math.nan, NOW))
    )
    observation = replace(observation, **{signal: broken})
    decision, _ = decide(observation, settled(config, observation), config, NOW)
    assert decision.replicas >= min(observation.current_replicas, config.maximum)


@given(sound, configs(), st.floats(0, 1000))
def test_more_load_never_means_fewer_replicas(observation: Observation, config: Config, more: float) -> None:
    assert observation.waiting is not None
    heavier = replace(observation, waiting=Figure(observation.waiting.value + more, NOW))
    state = settled(config, observation)
    assert decide(heavier, state, config, NOW)[0].replicas >= decide(observation, state, config, NOW)[0].replicas


@given(sound, configs())
def test_the_same_input_gives_the_same_answer(observation: Observation, config: Config) -> None:
    state = settled(config, observation)
    assert decide(observation, state, config, NOW) == decide(observation, state, config, NOW)


@given(st.lists(loads, min_size=1, max_size=19), counts, configs())
def test_never_down_in_the_first_window(series: list[float], current: int, config: Config) -> None:
    current = min(max(current, config.minimum), config.maximum)
    state = State()
    for second, load in enumerate(series):
        observation = observe(current=current, running=load, latencies=[], at=NOW + second)
        decision, state = decide(observation, state, config, NOW + second)
        assert decision.replicas >= current
        current = decision.replicas


@settings(deadline=None)
@given(loads, counts, configs(), st.integers(0, 3))
def test_constant_load_converges_and_stays(load: float, start: int, config: Config, start_delay: int) -> None:
    """With instant or slow replicas, from any count: at most one turn, and no change after a few windows."""
    config = replace(config, queue_depth_per_replica=config.queue_depth_per_replica or 4.0)
    current = min(max(start, config.minimum), config.maximum)
    ready, state, history = [current] * (start_delay + 1), State(), [current]
    for second in range(100):
        observation = observe(
            current=current, running=load, ready=min(ready[0], current), latencies=[], at=NOW + second
        )
        decision, state = decide(observation, state, config, NOW + second)
        current = decision.replicas
        ready = [*ready[1:], current]
        history.append(current)
    changes = [after - before for before, after in pairwise(history) if after != before]
    turns = sum(1 for a, b in pairwise(changes) if (a > 0) != (b > 0))
    assert turns <= 1
    assert len(set(history[-30:])) == 1
    per_replica = load / current
    depth = config.queue_depth_per_replica
    assert depth is not None
    assert current == config.maximum or per_replica <= depth * (1 + TUNING.tolerance) + 1e-9
    fewer = current - 1
    assert current == config.minimum or fewer == 0 or load > depth * TUNING.scale_down_margin * fewer * (1 - 1e-9)


@given(st.lists(st.tuples(loads, st.floats(0.1, 20)), min_size=1, max_size=60))
def test_memory_is_bounded_by_what_can_still_matter(series: list[tuple[float, float]]) -> None:
    config = Config(1, 1000, queue_depth_per_replica=1, tuning=TUNING)
    state, now = State(), NOW
    for load, pause in series:
        now += pause
        _, state = decide(observe(current=1, running=load, at=now), state, config, now)
        times, needs = zip(*state.needs, strict=True)
        assert list(needs) == sorted(set(needs), reverse=True)
        assert list(times) == sorted(times)
        assert all(now - at <= TUNING.scale_down_window_seconds for at in times)


@given(st.lists(st.floats(0.0005, 100), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_quantile_and_share_agree(seen: list[float], share: float) -> None:
    histogram = distribution(seen)
    quantile = histogram.quantile(share)
    assert histogram.share_within(quantile) >= share - 1e-9 or quantile == BOUNDS[-2]
    assert histogram.share_within(BOUNDS[-2]) <= 1.0
    assert sum(1 for latency in seen if latency <= 0.01) <= histogram.share_within(0.01) * len(seen) + 1e-6


@given(observations, configs())
def test_the_message_says_something(observation: Observation, config: Config) -> None:
    decision: Decision = decide(observation, State(), config, NOW)[0]
    assert decision.message
    assert isinstance(decision.reason, Reason)
