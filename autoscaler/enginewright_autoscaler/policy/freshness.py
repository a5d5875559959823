"""How far the signals can be trusted: no metrics is not zero load."""

from __future__ import annotations

import math
from dataclasses import dataclass

from enginewright_autoscaler.policy.config import Config
from enginewright_autoscaler.policy.observation import Distribution, Figure, Observation


@dataclass(frozen=True, slots=True)
class Trust:
    """Verdict on the signals that the model's objectives need."""

    missing: tuple[str, ...]
    """Names of signals that are absent, not a number, negative, or from the future."""
    age_seconds: float | None
    """Of the oldest one; None when something is missing."""

    def inflation(self, config: Config) -> float:
        """Factor on the need: 1 while fresh, rising with age until the count is held."""
        tuning = config.tuning
        if self.age_seconds is None or self.age_seconds <= tuning.stale_after_seconds:
            return 1.0
        span = tuning.hold_after_seconds - tuning.stale_after_seconds
        return 1.0 + tuning.stale_inflation * min(1.0, (self.age_seconds - tuning.stale_after_seconds) / span)


def figure_ok(figure: Figure | None, config: Config, now: float) -> bool:
    """Whether a figure may be used, old or not."""
    return (
        figure is not None
        and math.isfinite(figure.value)
        and figure.value >= 0
        and math.isfinite(figure.at_seconds)
        and figure.age_seconds(now) >= -config.tuning.clock_skew_seconds
    )


def distribution_ok(distribution: Distribution | None, config: Config, now: float) -> bool:
    """Whether a histogram may be used, old or not."""
    return (
        distribution is not None
        and distribution.usable
        and distribution.age_seconds(now) >= -config.tuning.clock_skew_seconds
    )


def trust(observation: Observation, config: Config, now: float) -> Trust:
    """Judge every signal that a decision for this model rests on."""
    figures = {
        "ready replicas": observation.ready,
        "waiting requests": observation.waiting,
        "running requests": observation.running,
    }
    wanted = {
        "request latency": (config.request_latency_seconds, observation.request_latency),
        "time to first token": (config.time_to_first_token_seconds, observation.time_to_first_token),
        "time between tokens": (config.time_between_tokens_seconds, observation.time_between_tokens),
    }
    distributions = {name: seen for name, (objective, seen) in wanted.items() if objective is not None}
    missing = [name for name, figure in figures.items() if not figure_ok(figure, config, now)]
    missing += [name for name, seen in distributions.items() if not distribution_ok(seen, config, now)]
    if missing:
        return Trust(tuple(missing), None)
    measured: list[Figure | Distribution] = [
        signal for signal in (*figures.values(), *distributions.values()) if signal is not None
    ]
    return Trust((), max(0.0, *(signal.age_seconds(now) for signal in measured)))
