"""Training computes products in bf16 where that is faster, and everything else as before."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from enginewright_api.optimization import DistillationObjective as Objective
from enginewright_api.recipe import Task
from enginewright_builder.compression import mixed_precision
from enginewright_builder.compression.batches import batches
from enginewright_builder.compression.imitation import answer
from enginewright_builder.compression.structure import load_model
from enginewright_builder.datasets.rows import Row
from tests.builder.tiny import TASKS, save_tiny

_OBJECTIVES = (Objective.LOGITS, Objective.HIDDEN_STATES)
_TEXTS = [Row(f"w{number} w{number + 1} w{3 * number + 2}") for number in range(2, 18)]


@pytest.fixture
def gains(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the machine is taken for one that gains from bf16."""
    monkeypatch.setattr(mixed_precision, "cpu_level", lambda: "x86_64-zen4" if request.param else "x86_64-avx2")
    mixed_precision._pays.cache_clear()
    request.addfinalizer(mixed_precision._pays.cache_clear)
    return bool(request.param)


@pytest.mark.parametrize("name", ["bert", "bert-classes", "llama"])
@pytest.mark.parametrize("gains", [True, False], indirect=True)
def test_answers_are_float32_and_near(tmp_path: Path, name: str, gains: bool) -> None:
    model = load_model(save_tiny(name, tmp_path), TASKS[name])
    (batch,) = islice(batches(_TEXTS, tmp_path, max_tokens=16, batch_size=16, seed=0), 1)
    exact, mixed = (answer(model, batch, _OBJECTIVES, mixed=each) for each in (False, True))
    output = next(iter(exact))
    pairs = [(exact[output], mixed[output]), *zip(exact.hidden_states, mixed.hidden_states, strict=True)]
    for own, other in pairs:
        assert other.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(own.flatten(), other.flatten(), dim=0) > 0.999
    assert torch.equal(*pairs[0]) is not gains


@pytest.mark.parametrize("gains", [True], indirect=True)
def test_what_learns_stays_float32(tmp_path: Path, gains: bool) -> None:
    model = load_model(save_tiny("bert-classes", tmp_path), Task.CLASSIFICATION)
    (batch,) = islice(batches(_TEXTS, tmp_path, max_tokens=16, batch_size=16, seed=0), 1)
    exact, mixed = {}, {}
    for into, chosen in ((exact, False), (mixed, gains)):
        model.zero_grad()
        answer(model, batch, (), mixed=chosen).logits.square().sum().backward()
        into.update({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert exact.keys() == mixed.keys()
    assert {gradient.dtype for gradient in mixed.values()} == {torch.float32}
    own, other = (torch.cat([each.flatten() for each in found.values()]) for found in (exact, mixed))
    assert torch.nn.functional.cosine_similarity(own, other, dim=0) > 0.99
    assert not torch.equal(own, other)
