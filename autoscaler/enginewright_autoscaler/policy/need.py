"""How many replicas the load needs, by queue depth and by latency.

Latency follows the M/G/1 processor-sharing queue (Kleinrock, Queueing Systems II, 4.4): with c requests in a replica on
average, a request takes 1 + c times as long as alone, and the replica is busy c / (1 + c) of the time. So the latency
alone, the work on offer and the concurrency that an objective leaves room for all follow from what is measured. Servers
that batch slow down less than that; the estimate then corrects itself as replicas are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enginewright_autoscaler.policy.config import Config
from enginewright_autoscaler.policy.observation import Distribution, Observation

LEAST_UTILISATION = 0.2
"""No objective asks for replicas less busy than this: what is missed at a fifth of the capacity is not missed for want
of replicas."""
_LEAST_CONCURRENCY = LEAST_UTILISATION / (1 - LEAST_UTILISATION)
_SURE = 1.645
"""One-sided 95 % normal quantile: fewer misses than this are chance."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A latency objective, and how it is kept."""

    name: str
    objective_seconds: float
    attained_share: float
    alone_seconds: float
    """Estimated latency of a request that is alone in its replica, at the attainment's quantile."""
    missed: bool
    mean_concurrency: float
    """Requests in one replica on average while these latencies were measured."""


@dataclass(frozen=True, slots=True)
class Need:
    """`up`: fewer would miss an objective. `down`: so many carry the load with margin."""

    up: int
    down: int
    by_latency: Miss | None
    """The objective that asks for more than the queue does."""
    unreachable: Miss | None
    """An objective missed although replicas are nearly idle, or slower alone than promised."""
    attained_share: float | None
    saturated: bool
    """Replicas have more to do than the objectives allow, and do all they can."""


def need(
    observation: Observation, config: Config, *, load: float, ready: float, inflation: float, settled_seconds: float
) -> Need:
    """Replicas for `load` requests waiting and running at `ready` replicas (at least 1).

    `settled_seconds`: for how long so many have been ready. A miss counts only when its whole window is younger.
    """
    latencies = _latencies(observation, config, ready, settled_seconds)
    up, down = 1, 1
    if config.queue_depth_per_replica is not None:
        up, down = _by_depth(load * inflation, config.queue_depth_per_replica, observation.current_replicas, config)
    by_latency = unreachable = None
    for latency in latencies:
        latency_up, latency_down = _by_latency(latency, load * inflation, ready, observation.current_replicas, config)
        if latency_up > up:
            up, by_latency = latency_up, latency
        down = max(down, latency_down)
        if latency.missed and _out_of_reach(latency, load / ready, observation.current_replicas, config):
            unreachable = latency
    attained = min((latency.attained_share for latency in latencies), default=None)
    over_depth = config.queue_depth_per_replica is not None and load / ready > config.queue_depth_per_replica
    saturated = over_depth or any(latency.missed and load / ready > 1 for latency in latencies)
    return Need(up, max(up, down), by_latency, unreachable, attained, saturated)


def _by_depth(load: float, depth: float, current: int, config: Config) -> tuple[int, int]:
    tuning = config.tuning
    enough = current > 0 and load <= depth * current * (1 + tuning.tolerance)
    up = min(current, _ceil(load / depth)) if enough else _ceil(load / depth)
    return max(1, up), max(1, _ceil(load / (depth * tuning.scale_down_margin)))


def _by_latency(latency: Miss, load: float, ready: float, current: int, config: Config) -> tuple[int, int]:
    margin = config.tuning.scale_down_margin
    up = 1
    if latency.missed:
        room = max(latency.objective_seconds / latency.alone_seconds - 1.0, _LEAST_CONCURRENCY)
        up, _ = _by_depth(load, room, current, config)
        if load / ready > _LEAST_CONCURRENCY * (1 + config.tuning.tolerance):
            # The model says that these suffice and the users say that they do not.
            up = max(up, math.floor(ready) + 1)
    if latency.alone_seconds == 0:
        return up, 1
    slack = max(1.0 - latency.alone_seconds / (latency.objective_seconds * margin), LEAST_UTILISATION)
    concurrency = max(load / ready, latency.mean_concurrency)
    work = ready * concurrency / (1.0 + concurrency)
    return up, max(1, _ceil(work / slack))


def _out_of_reach(latency: Miss, concurrency: float, current: int, config: Config) -> bool:
    nearly_idle = concurrency <= _LEAST_CONCURRENCY * (1 + config.tuning.tolerance)
    nobody_waits_at_maximum = current >= config.maximum and concurrency <= 1
    too_slow_alone = latency.alone_seconds > latency.objective_seconds and concurrency <= 1
    return nearly_idle or nobody_waits_at_maximum or too_slow_alone


def _latencies(observation: Observation, config: Config, ready: float, settled_seconds: float) -> list[Miss]:
    wanted: list[tuple[str, float | None, Distribution | None]] = [
        ("request latency", config.request_latency_seconds, observation.request_latency),
        ("time to first token", config.time_to_first_token_seconds, observation.time_to_first_token),
        ("time between tokens", config.time_between_tokens_seconds, observation.time_between_tokens),
    ]
    requests = observation.request_latency
    concurrency = requests.mean_concurrency / ready if requests is not None and requests.usable else 0.0
    return [
        _kept(name, objective, seen, concurrency, config, settled=settled_seconds >= seen.window_seconds)
        for name, objective, seen in wanted
        if objective is not None and seen is not None
    ]


def _kept(
    name: str, objective: float, seen: Distribution, concurrency: float, config: Config, *, settled: bool
) -> Miss:
    attained = seen.share_within(objective)
    chance = _SURE * math.sqrt(config.attainment * (1 - config.attainment) / seen.count) if seen.count else 0.0
    enough = settled and seen.count >= config.tuning.minimum_samples
    missed = enough and attained < config.attainment - chance
    alone = seen.quantile(config.attainment) / (1.0 + concurrency)
    return Miss(name, objective, attained, alone, missed, concurrency)


def _ceil(replicas: float) -> int:
    """Round up, but not for a rounding error."""
    return math.ceil(replicas - 1e-9)
