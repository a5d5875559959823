"""The losses of imitation, on outputs written by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from enginewright_api.engine_description import Pooling
from enginewright_api.optimization import DistillationObjective as Objective
from enginewright_api.recipe import Task
from enginewright_builder.compression.batches import Batch
from enginewright_builder.compression.imitation import (
    attention_loss,
    hidden_loss,
    imitation_loss,
    label_loss,
    layer_pairs,
    output_loss,
)

ROWS, TOKENS, WIDTH = 3, 4, 5
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(labels: list[int] | None = None) -> Batch:
    ids = torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS) % WIDTH
    return Batch(ids, MASK, None if labels is None else torch.tensor(labels))


def classes(seed: int, **given: Any) -> SimpleNamespace:
    return SimpleNamespace(logits=random(ROWS, WIDTH, seed=seed), **given)


def test_logits_follow_hinton_with_the_square_of_the_temperature() -> None:
    student, teacher = classes(1), classes(2)
    for temperature in (1.0, 4.0):
        p = (teacher.logits / temperature).softmax(1)
        q = (student.logits / temperature).softmax(1)
        expected = (p * (p / q).log()).sum(1).mean() * temperature**2
        found = output_loss(student, teacher, Task.CLASSIFICATION, batch(), temperature=temperature)
        torch.testing.assert_close(found, expected)


def test_the_mean_over_teachers_pulls_towards_their_mean_distribution() -> None:
    teachers = [random(ROWS, WIDTH, seed=seed) for seed in (3, 4)]
    mean = torch.stack([each.softmax(1) for each in teachers]).mean(0).log()

    def gradient(targets: list[torch.Tensor]) -> torch.Tensor:
        own = random(ROWS, WIDTH, seed=5).requires_grad_()
        student = SimpleNamespace(logits=own)
        losses = [
            output_loss(student, SimpleNamespace(logits=target), Task.CLASSIFICATION, batch(), temperature=1.0)
            for target in targets
        ]
        torch.stack(losses).mean().backward()
        assert own.grad is not None
        return own.grad

    torch.testing.assert_close(gradient(teachers), gradient([mean]))


def test_padding_of_text_counts_for_nothing() -> None:
    def logits(seed: int) -> torch.Tensor:
        return random(ROWS, TOKENS, WIDTH, seed=seed)

    def loss(own: torch.Tensor) -> torch.Tensor:
        student, teacher = SimpleNamespace(logits=own), SimpleNamespace(logits=logits(2))
        return imitation_loss(
            student, teacher, Task.TEXT_GENERATION, batch(), [Objective.LOGITS], temperature=2.0, alpha=0.5
        )

    padded = logits(1)
    padded[2, 2:] = 99.0
    torch.testing.assert_close(loss(padded), loss(logits(1)))
    changed = logits(1)
    changed[2, 0] = 0.0
    assert not torch.isclose(loss(changed), loss(logits(1)))


def test_labels_weigh_what_alpha_leaves() -> None:
    student, teacher = classes(1), classes(2)

    def loss(alpha: float, labels: list[int] | None) -> torch.Tensor:
        return imitation_loss(
            student, teacher, Task.CLASSIFICATION, batch(labels), [Objective.LOGITS], temperature=4.0, alpha=alpha
        )

    labels = [0, 4, -100]
    soft, hard = loss(1.0, labels), loss(0.0, labels)
    torch.testing.assert_close(loss(0.7, labels), 0.7 * soft + 0.3 * hard)
    expected = torch.nn.functional.cross_entropy(student.logits[:2], torch.tensor(labels[:2]))
    torch.testing.assert_close(hard, expected)
    for without in (None, [-100, -100, -100]):
        torch.testing.assert_close(loss(0.7, without), soft)


def test_the_next_tokens_are_the_labels_of_text() -> None:
    own = random(ROWS, TOKENS, WIDTH, seed=1)
    found = label_loss(SimpleNamespace(logits=own), Task.TEXT_GENERATION, batch())
    ids = batch().input_ids
    pairs = [(row, at) for row in range(ROWS) for at in range(TOKENS - 1) if MASK[row, at + 1]]
    expected = -torch.stack([own[row, at].log_softmax(0)[ids[row, at + 1]] for row, at in pairs]).mean()
    assert found is not None
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.CLS])
def test_embeddings_are_compared_by_direction_and_length(pooling: Pooling) -> None:
    states = random(ROWS, TOKENS, WIDTH, seed=1)

    def loss(own: torch.Tensor) -> float:
        student, teacher = SimpleNamespace(last_hidden_state=own), SimpleNamespace(last_hidden_state=states)
        return float(output_loss(student, teacher, Task.EMBEDDING, batch(), temperature=4.0, pooling=pooling))

    assert loss(states) == pytest.approx(0.0, abs=1e-6)
    assert loss(2 * states) == pytest.approx(1.0, abs=1e-5)  # same direction, one length too long
    assert loss(-states) == pytest.approx(2.0 + 4.0, abs=1e-5)


def test_embeddings_of_another_length_are_compared_by_their_cosines() -> None:
    states = random(ROWS, TOKENS, WIDTH, seed=1)
    rotated = torch.cat([states, torch.zeros(ROWS, TOKENS, 2)], dim=2)

    def loss(own: torch.Tensor) -> float:
        student, teacher = SimpleNamespace(last_hidden_state=own), SimpleNamespace(last_hidden_state=states)
        return float(output_loss(student, teacher, Task.EMBEDDING, batch(), temperature=4.0))

    assert loss(rotated) == pytest.approx(0.0, abs=1e-6)
    assert loss(random(ROWS, TOKENS, WIDTH + 2, seed=2)) > 0.01


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        (3, 6, [(0, 0), (1, 2), (2, 4), (3, 6)]),
        (4, 6, [(0, 0), (1, 2), (2, 3), (3, 4), (4, 6)]),
        (2, 2, [(0, 0), (1, 1), (2, 2)]),
        (1, 12, [(0, 0), (1, 12)]),
    ],
)
def test_layers_are_mapped_uniformly(student: int, teacher: int, pairs: list[tuple[int, int]]) -> None:
    assert layer_pairs(student, teacher) == pairs


def test_hidden_states_are_compared_relative_to_the_teachers_size() -> None:
    states = tuple(random(ROWS, TOKENS, WIDTH, seed=seed) for seed in range(3))
    teacher = SimpleNamespace(hidden_states=states)
    for scale in (1.0, 100.0):
        scaled = SimpleNamespace(hidden_states=tuple(scale * state for state in states))
        half = SimpleNamespace(hidden_states=tuple(0.5 * scale * state for state in states))
        torch.testing.assert_close(hidden_loss(half, scaled, batch()), torch.tensor(0.25))
    wrong = [state.clone() for state in states]
    wrong[1][2, 3] = 50.0  # padding
    torch.testing.assert_close(hidden_loss(SimpleNamespace(hidden_states=wrong), teacher, batch()), torch.tensor(0.0))


def test_a_projection_brings_narrow_states_to_the_teachers_width() -> None:
    narrow = tuple(random(ROWS, TOKENS, 2, seed=seed) for seed in range(2))
    maps = [torch.nn.Linear(2, WIDTH, bias=False) for _ in narrow]
    with torch.no_grad():
        wide = tuple(each(state) for each, state in zip(maps, narrow, strict=True))
    student, teacher = SimpleNamespace(hidden_states=narrow), SimpleNamespace(hidden_states=wide)
    assert float(hidden_loss(student, teacher, batch(), maps).detach()) == pytest.approx(0.0, abs=1e-9)


def test_attention_maps_are_distributions_also_between_unequal_head_counts() -> None:
    def maps(heads: int, seed: int) -> torch.Tensor:
        return random(ROWS, heads, TOKENS, TOKENS, seed=seed).masked_fill(MASK[:, None, None] == 0, -1e9).softmax(-1)

    teacher = SimpleNamespace(attentions=(maps(4, 1), maps(4, 2)))
    same = SimpleNamespace(attentions=teacher.attentions[1:])
    other = SimpleNamespace(attentions=(maps(4, 3),))
    fewer = SimpleNamespace(attentions=(teacher.attentions[1].mean(1, keepdim=True).repeat(1, 2, 1, 1),))
    assert float(attention_loss(same, teacher, batch())) == pytest.approx(0.0, abs=1e-6)
    assert float(attention_loss(fewer, teacher, batch())) == pytest.approx(0.0, abs=1e-6)
    assert float(attention_loss(other, teacher, batch())) > 0.05
