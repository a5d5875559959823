"""Weights in few bits: grids, GPTQ, AWQ and the budget, on small matrices with known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginewright_builder.toolchain.weight_only.awq import awq
from enginewright_builder.toolchain.weight_only.gptq import gptq
from enginewright_builder.toolchain.weight_only.graph import Accumulated, Moments
from enginewright_builder.toolchain.weight_only.grid import Codes, Grid, Weights, round_to_nearest
from enginewright_builder.toolchain.weight_only.mixed import cheapest


def weights(outputs: int = 24, inputs: int = 256, seed: int = 0) -> Weights:
    return np.random.default_rng(seed).normal(0, 0.05, (outputs, inputs)).astype(np.float32)


def activations(inputs: int = 256, tokens: int = 512) -> Weights:
    """Correlated, with a few loud channels, as a transformer's are."""
    random = np.random.default_rng(1)
    found = random.normal(size=(tokens, 16)) @ random.normal(size=(16, inputs)) + random.normal(size=(tokens, inputs))
    found[:, ::37] *= 12
    return np.asarray(found, np.float32)


def moments() -> Moments:
    total = Accumulated()
    for part in np.array_split(activations(), 7):
        total.add(part)
    return total.moments()


def harm(found: Weights) -> float:
    """Mean squared change of the products."""
    return float((((found - weights()) @ activations().T) ** 2).mean())


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [None, 32, 128])
def test_rounding_is_to_the_nearest_level_of_each_group(bits: int, group: int | None) -> None:
    found = round_to_nearest(weights(), Grid(bits, group))
    assert found.levels.shape == (24, 256 // (group or 256), group or 256)
    assert found.levels.max() <= 2**bits - 1
    assert np.array_equal(found.scales, found.scales.astype(np.float16).astype(np.float32))
    away = np.abs(found.weights() - weights()).reshape(found.levels.shape)
    # Half a step, and at the ends of the range what rounding the zero point moves it by.
    assert (away <= found.scales[..., None] * 1.01).all()
    assert np.median(away / found.scales[..., None]) < 0.3


def test_smaller_groups_and_more_bits_are_closer() -> None:
    errors = [harm(round_to_nearest(weights(), Grid(*grid)).weights()) for grid in ((2, 32), (4, None), (4, 32), (8,))]
    assert errors == sorted(errors, reverse=True)


def test_a_group_of_zeros_stays_zero() -> None:
    assert not round_to_nearest(np.zeros((2, 64), np.float32), Grid(4, 32)).weights().any()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [None, 64])
def test_gptq_keeps_the_products_better_than_rounding(bits: int, group: int | None) -> None:
    grid = Grid(bits, group)
    (found,) = gptq([weights()], moments().second, grid)
    assert harm(found.weights()) < 0.6 * harm(round_to_nearest(weights(), grid).weights())


def test_gptq_rounds_matrices_of_one_input_as_if_each_were_alone() -> None:
    grid, other = Grid(4, 64), weights(8, seed=5)
    together = gptq([weights(), other], moments().second, grid)
    for codes, matrix in zip(together, (weights(), other), strict=True):
        (alone,) = gptq([matrix], moments().second, grid)
        assert np.array_equal(codes.levels, alone.levels)


def test_awq_divides_loud_activations_and_keeps_the_products_better() -> None:
    grid = Grid(4)
    (found,), divisors = awq([weights()], moments(), grid)
    assert divisors[::37].min() > np.median(divisors)
    assert harm(found.weights() / divisors) < 0.6 * harm(round_to_nearest(weights(), grid).weights())


def test_moments_are_means_over_tokens() -> None:
    tokens = activations().astype(np.float64)
    assert moments().second == pytest.approx(tokens.T @ tokens / len(tokens), rel=1e-3, abs=1e-2)
    assert moments().magnitudes == pytest.approx(np.abs(tokens).mean(0), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.lists(st.floats(0, 1), min_size=3, max_size=3)), min_size=1, max_size=5),
    st.floats(2.0, 9.0),
)
def test_the_budget_is_spent_as_well_as_trying_everything(
    layers: list[tuple[int, list[float]]], average_bits: float
) -> None:
    bits = [2, 4, 8]
    sizes = [size for size, _ in layers]
    errors = np.array([sorted(one, reverse=True) for _, one in layers])

    def cost(picks: tuple[int, ...]) -> int:
        return sum(size * bits[pick] for size, pick in zip(sizes, picks, strict=True))

    def total(picks: tuple[int, ...]) -> float:
        return float(sum(errors[layer, pick] for layer, pick in enumerate(picks)))

    picked = tuple(cheapest(errors, sizes, bits, average_bits))
    affordable = [
        picks for picks in itertools.product(range(3), repeat=len(sizes)) if cost(picks) <= average_bits * sum(sizes)
    ]
    assert cost(picked) <= average_bits * sum(sizes)
    assert total(picked) == pytest.approx(min(map(total, affordable)), abs=1e-9)


def test_codes_say_what_the_runtime_computes_with() -> None:
    codes = Codes(
        Grid(4, 2),
        np.array([[[0, 15], [8, 9]]], np.uint8),
        np.array([[0.5, 2.0]], np.float32),
        np.array([[5, 8]], np.uint8),
    )
    assert codes.weights().tolist() == [[-2.5, 5.0, 0.0, 2.0]]


def on_a_grid(outputs: int = 24, inputs: int = 256, group: int = 32) -> Weights:
    """As a Q4_1 file stores them: 16 levels in every group, lowest and step both any float16."""
    random = np.random.default_rng(3)
    levels = random.integers(0, 16, (outputs, inputs // group, group))
    levels[..., 0], levels[..., 1] = 0, 15
    steps = random.uniform(0.002, 0.02, levels.shape[:2]).astype(np.float16).astype(np.float32)
    lowest = (-steps * random.uniform(4, 11, steps.shape)).astype(np.float16).astype(np.float32)
    return np.asarray(levels * steps[..., None] + lowest[..., None], np.float32).reshape(outputs, inputs)


def away(found: Weights, given: Weights) -> float:
    return float(np.linalg.norm(found - given) / np.linalg.norm(given))


def test_weights_that_were_on_a_grid_come_back_with_fractional_zero_points_only() -> None:
    given = on_a_grid()
    whole, fractional = (round_to_nearest(given, Grid(4, 32, fractional=one)) for one in (False, True))
    assert away(fractional.weights(), given) < 1e-3
    assert away(whole.weights(), given) > 0.03
    assert np.array_equal(fractional.zero_points, fractional.zero_points.astype(np.float16).astype(np.float32))
    assert (fractional.zero_points != np.rint(fractional.zero_points)).mean() > 0.9
    (by_gptq,) = gptq([given], moments().second, Grid(4, 32, fractional=True))
    assert away(by_gptq.weights(), given) < 1e-3
    (by_awq,), divisors = awq([given], moments(), Grid(4, 32, fractional=True))
    assert away(by_awq.weights() / divisors, given) < 1e-3


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("group", [None, 32])
def test_fractional_zero_points_are_closer_and_keep_the_rules_of_rounding(bits: int, group: int | None) -> None:
    given = weights()
    whole, fractional = (round_to_nearest(given, Grid(bits, group, fractional=one)) for one in (False, True))
    assert away(fractional.weights(), given) < away(whole.weights(), given)
    steps = np.abs(fractional.weights() - given).reshape(fractional.levels.shape) / fractional.scales[..., None]
    assert steps.max() < 0.52, "both ends are levels: nothing is cut"
    assert Grid(bits, fractional=True).zero_point_bits == 16
    assert Grid(8, fractional=True) != Grid(8)
    assert Grid(8, fractional=True).zero_point_bits == 0


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_a_group_of_one_value_keeps_it(value: float) -> None:
    given = np.full((2, 64), value, np.float32)
    found = round_to_nearest(given, Grid(4, 32, fractional=True)).weights()
    assert found == pytest.approx(given, rel=1e-3)


def test_a_range_far_from_zero_is_widened_to_it() -> None:
    given = (100.0 + np.linspace(0, 0.1, 64)[None]).astype(np.float32)
    found = round_to_nearest(given, Grid(4, 64, fractional=True))
    assert found.zero_points.max() == 0.0
    assert away(found.weights(), given) < 1e-3
