"""Masks, schedules and choices of pieces: exact for any scores."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Pruning
from enginewright_builder.compression.low_rank import energy_of, pays, rank_for
from enginewright_builder.compression.prune.masks import (
    blocks_masks,
    sparsity_of,
    two_of_four_masks,
    weights_masks,
)
from enginewright_builder.compression.prune.schedule import cubic, plan
from enginewright_builder.compression.prune.structured import highest, highest_together, kept_neurons

shapes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 7)), min_size=1, max_size=4)
shares = st.floats(0.0, 1.0)


def scores(of: list[tuple[int, int]], seed: int, *, values: int = 1000) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {str(index): torch.randint(0, values, shape, generator=generator).float() for index, shape in enumerate(of)}


@given(shapes, st.integers(0, 99), shares, st.sampled_from([2, 1000]))
def test_a_global_mask_is_exact_and_drops_the_lowest(
    of: list[tuple[int, int]], seed: int, sparsity: float, values: int
) -> None:
    given_scores = scores(of, seed, values=values)  # with two values nearly all are ties
    masks = weights_masks(given_scores, sparsity)
    flat = torch.cat([score.flatten() for score in given_scores.values()])
    keep = torch.cat([mask.flatten() for mask in masks.values()])
    assert int((~keep).sum()) == round(sparsity * flat.numel())
    assert all(masks[name].shape == score.shape for name, score in given_scores.items())
    if keep.any() and (~keep).any():
        assert flat[~keep].max() <= flat[keep].min()


@given(st.integers(0, 99), st.lists(shares, min_size=2, max_size=2))
def test_more_sparsity_only_drops_more(seed: int, pair: list[float]) -> None:
    less, more = sorted(pair)
    one, two = (weights_masks(scores([(8, 8), (4, 12)], seed, values=9), share) for share in (less, more))
    assert all(bool((two[name] <= one[name]).all()) for name in one)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_two_of_every_four_stay_and_they_are_the_highest(outputs: int, groups: int, seed: int) -> None:
    score = scores([(outputs, groups * 4)], seed, values=5)["0"]
    mask = two_of_four_masks({"0": score})["0"].reshape(outputs, groups, 4)
    assert bool((mask.sum(2) == 2).all())
    of_four = score.reshape(outputs, groups, 4)
    lowest_kept = of_four.masked_fill(~mask, 9.0).amin(2)
    highest_gone = of_four.masked_fill(mask, -1.0).amax(2)
    assert bool((lowest_kept >= highest_gone).all())


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99), shares)
def test_blocks_go_whole(rows: int, columns: int, seed: int, sparsity: float) -> None:
    masks = blocks_masks(scores([(rows * 16, columns * 16), (16, 32)], seed), sparsity)
    kept = 0
    for mask in masks.values():
        tiles = mask.reshape(mask.shape[0] // 16, 16, mask.shape[1] // 16, 16).sum((1, 3))
        assert set(tiles.flatten().tolist()) <= {0, 256}
        kept += int((tiles == 256).sum())
    total = rows * columns + 2
    assert total - kept == round(sparsity * total)
    assert sparsity_of(masks) == pytest.approx(1 - kept / total)


@pytest.mark.parametrize(("build", "shape"), [(two_of_four_masks, (4, 6)), (lambda s: blocks_masks(s, 0.5), (16, 24))])
def test_what_does_not_divide_is_refused_by_name(build: Any, shape: tuple[int, int]) -> None:
    with pytest.raises(DeterministicError, match=r"encoder\.dense") as caught:
        build({"encoder.dense": torch.zeros(shape)})
    assert caught.value.reason == "BlocksDoNotFit"


def pruning(**fields: Any) -> Pruning:
    return Pruning.model_validate({"granularity": "Weights"} | fields)


def test_the_cubic_schedule_is_that_of_zhu_and_gupta() -> None:
    assert [cubic(0.8, step, 4) for step in range(5)] == pytest.approx([0.0, 0.4625, 0.7, 0.7875, 0.8])
    steps = plan(pruning(sparsity=0.8, schedule={"type": "Cubic", "steps": 4}, recoverySteps=11))
    assert [step.sparsity for step in steps] == pytest.approx([0.4625, 0.7, 0.7875, 0.8])
    assert [step.recovery_steps for step in steps] == [2, 2, 2, 5]


@given(st.floats(0.01, 0.99), st.integers(1, 50), st.integers(0, 200))
def test_sparsity_only_grows_and_ends_where_asked(sparsity: float, count: int, recovery: int) -> None:
    steps = plan(pruning(sparsity=sparsity, schedule={"type": "Cubic", "steps": count}, recoverySteps=recovery))
    grown = [step.sparsity for step in steps]
    assert grown == sorted(grown)
    assert grown[-1] == sparsity
    assert sum(step.recovery_steps for step in steps) == recovery


def test_one_shot_is_one_step() -> None:
    assert [(step.sparsity, step.recovery_steps) for step in plan(pruning(sparsity=0.3, recoverySteps=5))] == [(0.3, 5)]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"schedule": {"type": "OneShot", "steps": 3}}, "OneShot is one step, not 3"),
        ({"granularity": "TwoOfFour", "schedule": {"type": "Cubic", "steps": 3}}, "use OneShot"),
    ],
)
def test_schedules_without_effect_are_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(DeterministicError, match=word):
        plan(pruning(**fields))


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5), st.data())
def test_pieces_are_chosen_together_and_no_layer_loses_all(lists: list[list[int]], data: st.DataObject) -> None:
    total = sum(map(len, lists))
    count = data.draw(st.integers(len(lists), total))
    kept = highest_together([torch.tensor(each).float() for each in lists], count)
    assert sum(map(len, kept)) == count
    for each, indices in zip(lists, kept, strict=True):
        assert indices == sorted(set(indices))
        assert max(each) in [each[index] for index in indices]


def test_the_highest_come_in_their_old_order() -> None:
    assert highest(torch.tensor([1.0, 5.0, 3.0, 5.0]), 2) == [1, 3]
    assert highest(torch.tensor([2.0, 2.0, 2.0]), 2) == [0, 1]


@pytest.mark.parametrize(
    ("width", "sparsity", "kept"), [(1536, 0.5, 768), (1536, 0.3, 1080), (64, 0.99, 8), (32, 0.3, 22), (32, 0.001, 32)]
)
def test_wide_layers_keep_a_multiple_of_eight(width: int, sparsity: float, kept: int) -> None:
    assert kept_neurons(width, sparsity) == kept


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=20), st.floats(0.01, 1.0))
def test_the_rank_is_the_smallest_that_keeps_the_energy(values: list[float], energy: float) -> None:
    singular = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    rank = rank_for(singular, energy)
    assert 1 <= rank <= len(values)
    assert energy_of(singular, rank) >= energy - 1e-12
    if rank > 1:
        assert energy_of(singular, rank - 1) < energy + 1e-12


def test_a_factorisation_pays_only_when_it_holds_fewer_weights() -> None:
    assert pays(191, 384, 384)
    assert not pays(192, 384, 384)
