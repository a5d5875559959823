"""What a model asks for and how cautious the policy is."""

from __future__ import annotations

from dataclasses import dataclass

from enginewright_api.errors import DeterministicError
from enginewright_api.operation_spec import Percentiles, Scaling, ScalingMode


@dataclass(frozen=True, slots=True)
class Tuning:
    """The same for every model of an installation."""

    scale_down_window_seconds: float = 300.0
    """The count falls only to the largest need of this window (HPA's stabilisation window has the same default)."""
    tolerance: float = 0.1
    """Load may exceed the objective by this share before replicas are added (as in HPA)."""
    scale_down_margin: float = 0.8
    """The remaining replicas must carry the load at this share of the objective. Below 1, or the count would flap."""
    growth_factor: float = 2.0
    growth_step: int = 4
    """At most ready × factor or ready + step replicas are asked for, whichever is more (HPA's default policies)."""
    stale_after_seconds: float = 15.0
    """From here on the need is inflated and the count does not fall."""
    hold_after_seconds: float = 60.0
    """From here on the count is held."""
    stale_inflation: float = 0.25
    """Share added to the need when the signals are about to be too old."""
    clock_skew_seconds: float = 1.0
    """A figure further in the future than this is ignored."""
    minimum_samples: int = 20
    """Fewer answered requests say nothing about attainment."""
    infeasible_after_seconds: float = 60.0
    """A miss that replicas cannot cure must last this long before it is called so."""
    rate_window_seconds: float = 10.0
    """Rates of the observation are over this long, so that they speak of the present replicas only after it."""
    capacity_memory_seconds: float = 3600.0
    """What a saturated replica was seen to carry is believed for so long."""
    pending_grace_seconds: float = 30.0
    """Pods may be unschedulable for this long before the count stops rising."""

    def __post_init__(self) -> None:
        """Raise DeterministicError for settings that could not work."""
        problems = {
            "scale_down_window_seconds must be positive": self.scale_down_window_seconds <= 0,
            "tolerance must be at least 0": self.tolerance < 0,
            "scale_down_margin must lie between 0 and 1": not 0 < self.scale_down_margin < 1,
            "growth_factor and growth_step must be at least 1": self.growth_factor < 1 or self.growth_step < 1,
            "stale_after_seconds must be positive": self.stale_after_seconds <= 0,
            "hold_after_seconds must exceed stale_after_seconds": self.hold_after_seconds <= self.stale_after_seconds,
        }
        for problem, present in problems.items():
            if present:
                raise DeterministicError("InvalidTuning", f"autoscaler settings: {problem}")


@dataclass(frozen=True, slots=True)
class Config:
    """One model's bounds and objectives."""

    minimum: int
    maximum: int
    attainment: float = 0.99
    queue_depth_per_replica: float | None = None
    request_latency_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    time_between_tokens_seconds: float | None = None
    tuning: Tuning = Tuning()


def config_of(scaling: Scaling, tuning: Tuning) -> Config | None:
    """Config of a model's `spec.scaling`; None where the number of replicas is not ours to decide.

    A model cannot sleep yet, so at least one replica is kept.
    """
    if scaling.mode is not ScalingMode.OBJECTIVES or scaling.objectives is None:
        return None
    objectives = scaling.objectives
    return Config(
        minimum=max(1, scaling.min_replicas),
        maximum=scaling.max_replicas,
        attainment=scaling.attainment,
        queue_depth_per_replica=objectives.queue_depth_per_replica,
        request_latency_seconds=_seconds(objectives.latency_milliseconds),
        time_to_first_token_seconds=_seconds(objectives.time_to_first_token_milliseconds),
        time_between_tokens_seconds=_seconds(objectives.inter_token_milliseconds),
        tuning=tuning,
    )


def _seconds(bound: Percentiles | None) -> float | None:
    return None if bound is None else bound.p95 / 1000.0
