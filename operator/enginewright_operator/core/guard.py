"""Whether a canary may go on, has to wait for more requests, or is taken back: figures in, a sentence out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from enginewright_api.operation_spec import Guard

from .traffic import Z_95, Answers, Traffic

LEAST_REQUESTS = 60
"""Of each version. Up to 51 requests the 95 % interval of a 95th percentile has no upper end."""


class Verdict(Enum):
    """What follows from the figures."""

    PASSED = "within the guard"
    UNDECIDED = "not enough to tell"
    BREACHED = "beyond the guard"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its figures."""

    verdict: Verdict
    message: str


def judge(traffic: Traffic | None, window: str, guard: Guard, *, weight: int) -> Judgement:
    """Hold the canary against the stable engine. `weight` is its share of the requests in per cent.

    It is taken back for what is proven at 95 % confidence; it goes on when the figures themselves keep the guard, each
    version has answered enough, and every gateway has told. What is missing never promotes.
    """
    if traffic is None or traffic.window != window or traffic.gateways == 0:
        return Judgement(Verdict.UNDECIDED, "no gateway has told any figures")
    figures = _figures(traffic.stable, traffic.canary)
    if broken := _broken(traffic, guard):
        return Judgement(Verdict.BREACHED, f"{broken} is exceeded: {figures}")
    if doubt := _doubt(traffic, guard, weight):
        return Judgement(Verdict.UNDECIDED, f"{doubt}: {figures}")
    return Judgement(Verdict.PASSED, figures)


def _broken(traffic: Traffic, guard: Guard) -> str | None:
    """The bound that the canary is proven to be beyond."""
    stable, canary = traffic.stable, traffic.canary
    if canary.failure_rate_at_least() > _error_limit(traffic, guard):
        return f"maxErrorRate {guard.max_error_rate:g}"
    slower = canary.p95_seconds(sigmas=-Z_95) > guard.max_latency_ratio * stable.p95_seconds(sigmas=Z_95)
    return f"maxLatencyRatio {guard.max_latency_ratio:g}" if canary.timed and stable.timed and slower else None


def _doubt(traffic: Traffic, guard: Guard, weight: int) -> str | None:
    """What stands against going on."""
    stable, canary = traffic.stable, traffic.canary
    if traffic.silent:
        return f"{len(traffic.silent)} of {traffic.gateways} gateways have not told their figures"
    # At 100 % the stable engine answers nothing that its successor could be held against.
    alone = weight >= 100
    if (canary.timed if alone else min(canary.timed, stable.timed)) < LEAST_REQUESTS:
        return f"each version has to answer {LEAST_REQUESTS} requests"
    if canary.failure_rate > _error_limit(traffic, guard):
        return f"maxErrorRate {guard.max_error_rate:g} is not kept for certain"
    if not alone and _ratio(stable, canary) > guard.max_latency_ratio:
        return f"maxLatencyRatio {guard.max_latency_ratio:g} is not kept for certain"
    return None


def _error_limit(traffic: Traffic, guard: Guard) -> float:
    """What both versions fail alike is not the canary's fault."""
    return max(guard.max_error_rate, traffic.stable.failure_rate)


def _ratio(stable: Answers, canary: Answers) -> float:
    own, other = canary.p95_seconds(), stable.p95_seconds()
    return own / other if math.isfinite(other) else math.inf


def _figures(stable: Answers, canary: Answers) -> str:
    rates = f"{_rate(canary)}, the stable engine {_rate(stable)}"
    if not canary.timed or not stable.timed:
        return f"the canary failed {rates}"
    own, other = canary.p95_seconds(), stable.p95_seconds()
    times = f"p95 {_milliseconds(own)} against {_milliseconds(other)}"
    ratio = _ratio(stable, canary)
    return f"the canary failed {rates}; {times}" + (f", {ratio:.2f} times" if math.isfinite(ratio) else "")


def _rate(answers: Answers) -> str:
    return f"{answers.failures} of {answers.requests} requests"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if math.isfinite(seconds) else "longer than all buckets"
