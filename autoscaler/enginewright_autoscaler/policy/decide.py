"""The decision: observation, memory, configuration and time in; replicas and the reason out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from enginewright_api.optimized_model import ScalingState
from enginewright_autoscaler.policy.config import Config
from enginewright_autoscaler.policy.decision import Decision, Numbers, Reason, State
from enginewright_autoscaler.policy.freshness import Trust, figure_ok, trust
from enginewright_autoscaler.policy.need import Need, need
from enginewright_autoscaler.policy.observation import Figure, Observation


@dataclass(frozen=True, slots=True)
class _Case:
    """One decision while it is being made."""

    observation: Observation
    config: Config
    now: float
    trust: Trust
    health: ScalingState
    numbers: Numbers

    @property
    def current(self) -> int:
        return self.observation.current_replicas

    def answer(self, replicas: int, reason: Reason, message: str, state: ScalingState | None = None) -> Decision:
        return Decision(replicas, reason, state or self.health, message, self.numbers)


def decide(observation: Observation, state: State, config: Config, now: float) -> tuple[Decision, State]:
    """How many replicas, and why. No I/O, no clock: `now` is on the clock of the observation's times.

    Order: bounds, trust in the signals, need, up (at once, bounded), down (only to the largest need of the window).
    With missing or stale signals the count never falls, except to a maximum that was lowered.
    """
    verdict = trust(observation, config, now)
    health = _health(verdict, config)
    case = _Case(observation, config, now, verdict, health, _numbers(observation, verdict, config, now))
    bounded = min(max(case.current, config.minimum), config.maximum)
    if bounded != case.current:
        message = f"{case.current} replicas lie outside {config.minimum} to {config.maximum}"
        return case.answer(bounded, Reason.OUT_OF_BOUNDS, message), state
    held = _held(case)
    if held is not None:
        return held, state
    load = (case.numbers.waiting or 0.0) + (case.numbers.running or 0.0)
    ready = case.numbers.ready or 0.0
    state = state.seen_ready(now, ready)
    wanted = need(
        observation,
        config,
        load=load,
        ready=ready,
        inflation=verdict.inflation(config),
        settled_seconds=now - state.ready_since,
    )
    state = state.seen_infeasible(now, wanted.unreachable is not None)
    state, wanted = _with_capacity(case, wanted, state)
    if health is ScalingState.FRESH:
        window, gap = config.tuning.scale_down_window_seconds, config.tuning.stale_after_seconds
        state = state.recorded(now, wanted.down, window_seconds=window, gap_seconds=gap)
    numbers = replace(case.numbers, need_up=wanted.up, need_down=wanted.down, attained_share=wanted.attained_share)
    case = replace(case, numbers=numbers)
    return (_up if wanted.up > case.current else _down)(case, wanted, state), state


def _with_capacity(case: _Case, wanted: Need, state: State) -> tuple[State, Need]:
    """Learn what one replica carries, and keep as many as the traffic takes at that rate.

    The requests in the system do not tell: they fall out of proportion when replicas are added to a saturated model,
    and would come back as soon as one is taken away.
    """
    tuning, rate = case.config.tuning, case.observation.completions_per_second
    measured = rate.value if rate is not None and figure_ok(rate, case.config, case.now) else None
    ready = case.numbers.ready or 0.0
    settled = case.now - state.ready_since >= tuning.rate_window_seconds
    if measured is not None and settled and case.health is ScalingState.FRESH:
        state = state.seen_rate(
            case.now,
            measured / ready,
            saturated=wanted.saturated,
            memory_seconds=tuning.capacity_memory_seconds,
        )
    if state.capacity_per_second is None:
        return state, wanted
    if measured is None:
        return state, replace(wanted, down=max(wanted.down, case.current))
    carried = math.ceil(measured / (state.capacity_per_second * tuning.scale_down_margin) - 1e-9)
    return state, replace(wanted, down=max(wanted.down, carried))


def _health(verdict: Trust, config: Config) -> ScalingState:
    if verdict.age_seconds is None:
        return ScalingState.METRICS_MISSING
    stale = verdict.age_seconds > config.tuning.stale_after_seconds
    return ScalingState.METRICS_STALE if stale else ScalingState.FRESH


def _held(case: _Case) -> Decision | None:
    """The answer when nothing can be concluded."""
    current, verdict = case.current, case.trust
    if verdict.missing:
        message = f"no usable figure for {', '.join(verdict.missing)}: staying at {current}"
        return case.answer(current, Reason.METRICS_MISSING, message)
    if (verdict.age_seconds or 0.0) > case.config.tuning.hold_after_seconds:
        message = f"the oldest signal is {verdict.age_seconds:.0f} s old: staying at {current}"
        return case.answer(current, Reason.METRICS_STALE, message)
    if case.numbers.ready == 0:
        message = f"no replica is ready, so nothing says what one carries: staying at {current}"
        return case.answer(current, Reason.NO_READY_REPLICA, message)
    return None


def _up(case: _Case, wanted: Need, state: State) -> Decision:
    """At once, but never far beyond what is ready: a backlog grows while replicas start, whatever they will carry."""
    current, maximum, tuning = case.current, case.config.maximum, case.config.tuning
    limited = _no_room(case) or (_no_use(case, state) if _only_latency(case, wanted) else None)
    if limited is not None:
        return limited
    why = _why(case, wanted)
    ready = case.numbers.ready or 0.0
    ceiling = math.ceil(max(ready * tuning.growth_factor, ready + tuning.growth_step))
    replicas = min(wanted.up, max(current, ceiling), maximum)
    if replicas > current:
        reason = Reason.QUEUE_DEPTH if wanted.by_latency is None else Reason.LATENCY
        return case.answer(replicas, reason, f"{why}: {current} to {replicas} replicas")
    if current >= maximum:
        return _no_use(case, state) or case.answer(
            current, Reason.AT_MAXIMUM, f"{why}: {current} replicas is the maximum"
        )
    return case.answer(current, Reason.STEADY, f"{why}: {current} are asked for, {ready:.0f} ready; waiting for them")


def _down(case: _Case, wanted: Need, state: State) -> Decision:
    """To the largest need of the window, when the window was seen whole and the signals are fresh."""
    current, config = case.current, case.config
    if case.health is not ScalingState.FRESH:
        message = f"the oldest signal is {case.trust.age_seconds or 0.0:.0f} s old: not below {current}"
        return case.answer(current, Reason.METRICS_STALE, message)
    window = config.tuning.scale_down_window_seconds
    target = min(max(wanted.down, state.largest_need(), config.minimum), current)
    covered = state.covered_since is not None and case.now - state.covered_since >= window
    if covered and target < current:
        message = (
            f"{_load(case.numbers)}; no more than {target} replicas were needed for {window:g} s: "
            f"{current} to {target} replicas"
        )
        return case.answer(target, Reason.LOAD_FELL, message)
    limited = _no_room(case) or _no_use(case, state)
    if limited is not None:
        return limited
    if wanted.down < current and current > config.minimum:
        message = f"{_load(case.numbers)}; {wanted.down} replicas would do, not yet for {window:g} s"
        return case.answer(current, Reason.STABILIZING, message)
    return case.answer(current, Reason.STEADY, _load(case.numbers))


def _no_room(case: _Case) -> Decision | None:
    pending = case.observation.pending
    if pending is None or pending.count == 0:
        return None
    waited = case.now - pending.since_seconds
    if waited < case.config.tuning.pending_grace_seconds:
        return None
    message = f"{pending.count} of {case.current} replicas find no room"
    if pending.message:
        message += f": {pending.message}"
    return case.answer(case.current, Reason.CAPACITY_LIMITED, message, ScalingState.CAPACITY_LIMITED)


def _only_latency(case: _Case, wanted: Need) -> bool:
    """Whether replicas are wanted for latency alone, with nobody in line."""
    load = (case.numbers.waiting or 0.0) + (case.numbers.running or 0.0)
    return wanted.by_latency is not None and load <= (case.numbers.ready or 0.0)


def _no_use(case: _Case, state: State) -> Decision | None:
    since, tuning = state.infeasible_since, case.config.tuning
    if since is None or case.now - since < tuning.infeasible_after_seconds:
        return None
    message = (
        f"{100 * (case.numbers.attained_share or 0.0):.1f} % of requests keep the latency objective instead of "
        f"{100 * case.config.attainment:g} %, with {_load(case.numbers)}: more replicas would not help"
    )
    return case.answer(case.current, Reason.OBJECTIVE_INFEASIBLE, message, ScalingState.OBJECTIVE_INFEASIBLE)


def _why(case: _Case, wanted: Need) -> str:
    load = _load(case.numbers)
    if wanted.by_latency is None:
        return f"{load}, objective {case.config.queue_depth_per_replica:g} a replica"
    miss = wanted.by_latency
    return (
        f"{100 * miss.attained_share:.1f} % of requests keep {miss.name} of {1000 * miss.objective_seconds:g} ms "
        f"instead of {100 * case.config.attainment:g} %, with {load}"
    )


def _load(numbers: Numbers) -> str:
    waiting, running, ready = numbers.waiting or 0.0, numbers.running or 0.0, numbers.ready or 0.0
    return f"{waiting:.1f} waiting and {running:.1f} running at {ready:.0f} ready"


def _numbers(observation: Observation, verdict: Trust, config: Config, now: float) -> Numbers:
    def value(figure: Figure | None) -> float | None:
        return figure.value if figure is not None and figure_ok(figure, config, now) else None

    return Numbers(
        current=observation.current_replicas,
        ready=value(observation.ready),
        waiting=value(observation.waiting),
        running=value(observation.running),
        signal_age_seconds=verdict.age_seconds,
    )
