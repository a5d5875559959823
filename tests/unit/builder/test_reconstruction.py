"""Which inputs of a linear go, and weights that make up for them: against least squares worked out the long way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

from enginewright_builder.compression.prune.reconstruction import enough, look
from enginewright_builder.compression.training import Batch

TOKENS, INPUTS, OUTPUTS = 200, 6, 4


class Model(nn.Module):
    """One linear over given vectors: token ids are their numbers."""

    def __init__(self, vectors: torch.Tensor, *, bias: bool = True) -> None:
        super().__init__()
        self.vectors = vectors
        self.linear = nn.Linear(vectors.shape[1], OUTPUTS, bias=bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        del attention_mask
        answer: torch.Tensor = self.linear(self.vectors[input_ids])
        return answer


def batch(model: Model) -> Batch:
    """All vectors, and padding that must not count."""
    ids = torch.arange(len(model.vectors))
    padded = torch.cat([ids, torch.zeros(50, dtype=torch.long)])[None]
    return Batch(padded, (torch.arange(padded.shape[1]) < len(ids)).long()[None])


def made(seed: int, *, bias: bool = True) -> Model:
    torch.manual_seed(seed)
    mixed = torch.randn(TOKENS, INPUTS) @ (torch.eye(INPUTS) + 0.3 * torch.randn(INPUTS, INPUTS)) + torch.randn(INPUTS)
    return Model(mixed, bias=bias)


def missing(model: Model, kept: Sequence[int], *, bias: bool) -> float:
    """What least squares over the kept inputs cannot give of the outputs, squared and summed."""
    wanted = model.vectors @ model.linear.weight.detach().T
    having = model.vectors[:, list(kept)]
    if bias:
        having = torch.cat([having, torch.ones(TOKENS, 1)], 1)
    if not having.shape[1]:
        return float(wanted.square().sum())
    best = torch.linalg.lstsq(having.double(), wanted.double()).solution
    return float((wanted.double() - having.double() @ best).square().sum())


@given(st.integers(0, 300), st.integers(1, INPUTS - 1))
def test_weights_that_stay_come_as_near_as_least_squares_can(seed: int, count: int) -> None:
    model = made(seed)
    kept = sorted(torch.randperm(INPUTS)[:count].tolist())
    before = model.linear(model.vectors).detach()
    look(model, ["linear"], [batch(model)]).compensate("linear", kept)
    with torch.no_grad():
        model.linear.weight[:, [index for index in range(INPUTS) if index not in kept]] = 0
    error = float((model.linear(model.vectors).detach() - before).square().sum())
    energy = float(before.square().sum())
    assert error <= missing(made(seed), kept, bias=True) * 1.05 + 1e-3 * energy  # damping takes a little


@given(st.integers(0, 300))
def test_scores_rise_in_the_order_in_which_the_cheapest_goes(seed: int) -> None:
    model = made(seed, bias=False)
    scores = look(model, ["linear"], [batch(model)]).scores("linear", INPUTS)
    order = torch.argsort(scores).tolist()
    assert torch.isinf(scores[order[-1]])
    energy = missing(model, [], bias=False)
    alive = list(range(INPUTS))
    for gone in order[:-1]:
        errors = {
            piece: missing(model, [index for index in alive if index != piece], bias=False) / energy for piece in alive
        }
        assert errors[gone] <= min(errors.values()) * 1.1 + 3e-3  # damping may turn near ties
        alive.remove(gone)


def test_of_two_inputs_that_say_the_same_one_costs_nothing() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(TOKENS, INPUTS)
    vectors[:, 4] = 2.0 * vectors[:, 1]
    model = Model(vectors)
    with torch.no_grad():
        model.linear.weight[:, 4] *= 3  # so that the one that is left counts most
    before = model.linear(vectors).detach()
    inputs = look(model, ["linear"], [batch(model)])
    scores = inputs.scores("linear", INPUTS)
    first, second = torch.argsort(scores)[:2].tolist()
    assert first in {1, 4}
    assert second not in {1, 4}
    assert scores[first] < 0.01 * scores[second]
    kept = [index for index in range(INPUTS) if index != first]
    inputs.compensate("linear", kept)
    with torch.no_grad():
        model.linear.weight[:, first] = 0
    assert torch.allclose(model.linear(vectors), before, atol=0.02)


def test_the_bias_makes_up_for_an_input_that_is_always_the_same() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(TOKENS, INPUTS)
    vectors[:, 2] = 5.0
    model = Model(vectors)
    before = model.linear(vectors).detach()
    look(model, ["linear"], [batch(model)]).compensate("linear", [0, 1, 3, 4, 5])
    with torch.no_grad():
        model.linear.weight[:, 2] = 0
    assert torch.allclose(model.linear(vectors), before, atol=0.05)


@pytest.mark.parametrize("pieces", [3, 2])
def test_pieces_of_several_inputs_go_together(pieces: int) -> None:
    model = made(5, bias=False)
    size = INPUTS // pieces
    scores = look(model, ["linear"], [batch(model)]).scores("linear", pieces)
    cheapest = min(
        combinations(range(pieces), pieces - 1),
        key=lambda kept: missing(model, [piece * size + at for piece in kept for at in range(size)], bias=False),
    )
    assert int(torch.argmin(scores)) == next(piece for piece in range(pieces) if piece not in cheapest)


def test_wide_layers_lose_many_a_round_and_keep_the_order_strict() -> None:
    torch.manual_seed(1)
    model = Model(torch.randn(30_000, 300))
    scores = look(model, ["linear"], [batch(model)]).scores("linear", 300)
    assert len(set(scores.tolist())) == 300
    wanted = model.linear.weight.detach().square().sum(0) * model.vectors.square().sum(0)  # nearly independent inputs
    assert torch.corrcoef(torch.stack([torch.argsort(torch.argsort(each)).double() for each in (scores, wanted)]))[
        0, 1
    ] == pytest.approx(1.0, abs=0.05)


def test_batches_are_drawn_until_they_hold_enough_tokens() -> None:
    one = Batch(torch.zeros(2, 5, dtype=torch.long), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]))
    assert [len(list(enough([one] * 9, tokens))) for tokens in (0, 1, 5, 6, 1000)] == [0, 1, 1, 2, 9]


def test_inputs_that_are_always_zero_cost_nothing() -> None:
    torch.manual_seed(0)
    model = Model(torch.zeros(TOKENS, INPUTS))
    inputs = look(model, ["linear"], [batch(model)])
    assert torch.count_nonzero(inputs.scores("linear", INPUTS)[:-1].isnan()) == 0
    inputs.compensate("linear", [0, 1])
    assert model.linear.weight.isfinite().all()
