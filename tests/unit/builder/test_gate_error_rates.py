"""The gate's error rates, small: seeds are fixed, the whole table is `benchmarks/gate_error_rates.py`."""

from __future__ import annotations

import pytest

from benchmarks.gate_error_rates import BUDGET, DISTRIBUTIONS, MANY, PROMISED, SAMPLES, passes

NUMBERS = {distribution.name: number for number, distribution in enumerate(DISTRIBUTIONS)}
RUNS = 20


@pytest.mark.parametrize("name", NUMBERS)
def test_twice_the_budget_does_not_pass(name: str) -> None:
    runs = max(4, round(RUNS * DISTRIBUTIONS[NUMBERS[name]].effort))
    passed, _ = passes(NUMBERS[name], 2 * BUDGET, SAMPLES, runs)
    assert passed <= PROMISED


@pytest.mark.parametrize(
    ("name", "available"),
    [
        ("Accuracy 0.97, 0.3 % disagree", MANY),
        ("Accuracy 0.90, 1 % disagree", MANY),
        ("Cosine, lognormal drop, sigma 1.5", SAMPLES),
        ("Perplexity, 0.2 nats a token", SAMPLES),
    ],
)
def test_no_drop_passes(name: str, available: int) -> None:
    passed, rows = passes(NUMBERS[name], 0.0, available, RUNS)
    assert passed >= 1 - PROMISED
    assert SAMPLES <= rows <= available


def test_accuracy_that_flips_often_needs_more_rows_than_the_default() -> None:
    """No bound can help: the spread of what flips is as wide as the budget. The rows that are there are drawn."""
    name = "Accuracy 0.90, 3 % disagree"
    few, _ = passes(NUMBERS[name], 0.0, SAMPLES, RUNS)
    many, rows = passes(NUMBERS[name], 0.0, MANY, RUNS)
    assert few < 0.7
    assert many >= 1 - PROMISED
    assert rows > SAMPLES


def test_what_loses_just_the_budget_seldom_passes_however_often_is_looked() -> None:
    passed, _ = passes(NUMBERS["Accuracy 0.90, 1 % disagree"], BUDGET, MANY, 2 * RUNS)
    assert passed <= 2 * PROMISED, "two standard errors of forty runs above what is promised"
