"""What a guard makes of figures: proven harm goes back, proven good goes on, everything else waits."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_api.metrics import CANARY_BUCKETS_SECONDS
from enginewright_api.operation_spec import Guard
from enginewright_operator.core.guard import LEAST_REQUESTS, Verdict, judge
from enginewright_operator.core.traffic import Z_95, Answers, Traffic

GUARD = Guard(max_latency_ratio=1.2, max_error_rate=0.01)
PASSED, UNDECIDED, BREACHED = Verdict.PASSED, Verdict.UNDECIDED, Verdict.BREACHED


def answered(times: list[float], failures: int = 0) -> Answers:
    """Requests with these times, and some that failed."""
    buckets = [0] * (len(CANARY_BUCKETS_SECONDS) + 1)
    for seconds in times:
        buckets[bisect_left(CANARY_BUCKETS_SECONDS, seconds)] += 1
    return Answers(len(times) + failures, failures, tuple(buckets))


def steady(count: int, seconds: float = 0.1, failures: int = 0) -> Answers:
    """So many successful requests of the same time."""
    return answered([seconds] * count, failures)


def traffic(stable: Answers, canary: Answers, **changes: object) -> Traffic:
    """One gateway told these."""
    return replace(Traffic("w", stable, canary, gateways=1), **changes)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    ("stable", "canary", "verdict"),
    [
        (steady(1000), steady(100), PASSED),
        (steady(1000), steady(100, 0.115), PASSED),
        (steady(1000), steady(100, 0.05), PASSED),
        (steady(1000), steady(100, 0.2), BREACHED),
        (steady(1000), steady(30, 0.2), BREACHED),
        (steady(1000), steady(LEAST_REQUESTS - 1), UNDECIDED),
        (steady(LEAST_REQUESTS - 1), steady(1000), UNDECIDED),
        (steady(1000), steady(0), UNDECIDED),
        (steady(0), steady(1000), UNDECIDED),
        (steady(40), steady(40, 0.2), UNDECIDED),
        (steady(1000), steady(180, failures=20), BREACHED),
        (steady(1000), steady(0, failures=3), BREACHED),
        (steady(1000), steady(2, failures=1), BREACHED),
        (steady(1000), steady(198, failures=2), PASSED),
        (steady(1000), steady(98, failures=2), UNDECIDED),
        (steady(900, failures=100), steady(180, failures=20), PASSED),
        (steady(900, failures=100), steady(100, failures=100), BREACHED),
    ],
)
def test_verdicts(stable: Answers, canary: Answers, verdict: Verdict) -> None:
    found = judge(traffic(stable, canary), "w", GUARD, weight=10)
    assert found.verdict is verdict, found.message
    assert f"the canary failed {canary.failures} of {canary.requests} requests" in found.message


def test_every_figure_is_in_the_message() -> None:
    found = judge(traffic(steady(1000, 0.1, 10), steady(90, 0.2)), "w", GUARD, weight=10)
    assert found.message == (
        "maxLatencyRatio 1.2 is exceeded: the canary failed 0 of 90 requests, the stable engine 10 of 1010 requests; "
        "p95 214 ms against 107 ms, 2.00 times"
    )


@pytest.mark.parametrize(
    "missing",
    [
        None,
        traffic(steady(1000), steady(100), window="an earlier one"),
        traffic(steady(1000), steady(100), gateways=0),
        traffic(steady(1000), steady(100), gateways=2, silent=("http://two",)),
    ],
)
def test_missing_figures_never_promote(missing: Traffic | None) -> None:
    assert judge(missing, "w", GUARD, weight=10).verdict is UNDECIDED


def test_what_is_proven_by_some_gateways_is_proven() -> None:
    found = judge(traffic(steady(1000), steady(50, failures=50), gateways=2, silent=("x",)), "w", GUARD, weight=10)
    assert found.verdict is BREACHED


def test_with_all_requests_at_the_canary_only_errors_can_be_judged() -> None:
    assert judge(traffic(Answers(), steady(100)), "w", GUARD, weight=100).verdict is PASSED
    assert judge(traffic(Answers(), steady(50, failures=50)), "w", GUARD, weight=100).verdict is BREACHED
    assert judge(traffic(Answers(), steady(59)), "w", GUARD, weight=100).verdict is UNDECIDED


def test_no_error_rate_allowed_means_that_one_error_is_too_many() -> None:
    none = Guard(max_error_rate=0.0)
    assert judge(traffic(steady(1000), steady(5000, failures=1)), "w", none, weight=10).verdict is BREACHED


@given(st.lists(st.floats(0.0005, 200.0), min_size=1, max_size=300))
def test_the_percentile_is_within_its_bucket(times: list[float]) -> None:
    found, exact = answered(times).p95_seconds(), sorted(times)[math.ceil(0.95 * len(times)) - 1]
    if exact > CANARY_BUCKETS_SECONDS[-1]:
        assert found == math.inf
    else:
        place = bisect_left(CANARY_BUCKETS_SECONDS, exact)
        low = CANARY_BUCKETS_SECONDS[place - 1] if place else 0.0
        assert low - 1e-12 <= found <= CANARY_BUCKETS_SECONDS[place] + 1e-12


def test_bounds_hold_the_percentile_about_as_often_as_they_say() -> None:
    """Lognormal times, p95 known: each one-sided 95 % bound misses it in about one of twenty samples."""
    draw = random.Random(7)  # noqa: S311 - simulated times
    exact = 0.1 * math.exp(0.5 * 1.6448536)
    low = high = 0
    for _ in range(400):
        sample = answered([0.1 * draw.lognormvariate(0, 0.5) for _ in range(200)])
        low += sample.p95_seconds(sigmas=-Z_95) > exact
        high += sample.p95_seconds(sigmas=Z_95) < exact
    assert low <= 40
    assert high <= 40


def test_equal_engines_are_hardly_ever_taken_for_a_breach() -> None:
    draw = random.Random(11)  # noqa: S311 - simulated times
    verdicts = []
    for _ in range(300):
        stable, canary = (answered([0.1 * draw.lognormvariate(0, 0.5) for _ in range(n)]) for n in (1000, 80))
        verdicts.append(judge(traffic(stable, canary), "w", GUARD, weight=10).verdict)
    assert verdicts.count(BREACHED) <= 3
    assert verdicts.count(PASSED) >= 200


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_the_bound_of_the_error_rate_is_below_the_rate(requests: int, failures: int) -> None:
    found = Answers(requests, min(failures, requests))
    assert 0.0 <= found.failure_rate_at_least() <= found.failure_rate
