"""The rise of perplexity: computed over tokens, bounded over rows."""

from __future__ import annotations

import numpy as np
import pytest

from enginewright_api.errors import DeterministicError
from enginewright_builder.gate.bounds import CONFIDENCES, bound_at
from enginewright_builder.gate.perplexity import perplexity, perplexity_bounds


def rows(count: int, rise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Engine, baseline, tokens; the true relative rise is exp(rise) - 1 and its noise is paired."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(8, 200, count).astype(np.float64)
    baseline = generator.normal(3.0, 0.6, count)
    return baseline + rise + generator.normal(0.0, 0.4, count) / np.sqrt(tokens), baseline, tokens


def test_perplexity_counts_tokens_not_rows() -> None:
    assert perplexity(np.log([2.0, 8.0]), np.array([3.0, 1.0])) == pytest.approx((2.0**3 * 8.0) ** 0.25)


def test_a_paired_rise_is_bounded_far_tighter_than_two_perplexities_would_be() -> None:
    engine, baseline, tokens = rows(512, rise=0.005, seed=3)
    bounds = perplexity_bounds(engine, baseline, tokens)
    rise = perplexity(engine, tokens) / perplexity(baseline, tokens) - 1
    assert len(bounds) == len(CONFIDENCES)
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(rise, abs=2e-4), "the bound at one half is the estimate"
    assert rise < bound_at(bounds, 0.95) < rise + 0.004


def test_the_bound_holds_as_often_as_it_says() -> None:
    true_rise = float(np.expm1(0.01))
    held = sum(bound_at(perplexity_bounds(*rows(120, 0.01, seed)), 0.95) >= true_rise for seed in range(150))
    assert 0.90 <= held / 150 <= 0.99


def test_an_equal_engine_has_not_risen_and_a_better_one_has_fallen() -> None:
    _, baseline, tokens = rows(64, 0.0, seed=1)
    assert perplexity_bounds(baseline, baseline, tokens)[-1] == 0.0
    assert perplexity_bounds(baseline - 0.1, baseline, tokens)[-1] == pytest.approx(np.expm1(-0.1))


@pytest.mark.parametrize(
    ("engine", "tokens", "reason", "word"),
    [
        ([1.0, 2.0], [4.0, 0.0], "InvalidDataset", "two tokens"),
        ([], [], "InvalidDataset", "two tokens"),
        ([1.0, np.nan], [4.0, 4.0], "NotFinite", "the engine"),
        ([np.inf, 1.0], [4.0, 4.0], "NotFinite", "first row 0"),
    ],
)
def test_rows_that_have_no_perplexity_are_refused(
    engine: list[float], tokens: list[float], reason: str, word: str
) -> None:
    with pytest.raises(DeterministicError) as caught:
        perplexity_bounds(np.array(engine), np.ones(len(engine)), np.array(tokens))
    assert caught.value.reason == reason
    assert word in caught.value.message
