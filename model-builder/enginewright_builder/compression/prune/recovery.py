"""Training after pruning: the pruned model imitates the unpruned one; pruned weights stay zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import transformers
from torch.nn.utils import prune as torch_prune

from enginewright_api.engine_description import Pooling
from enginewright_api.optimization import DistillationObjective
from enginewright_api.recipe import Task
from enginewright_builder.compression.imitation import answer, imitation_loss
from enginewright_builder.compression.training import Batch, Tell, rate_for, train

_TEMPERATURE = 4.0
_ALPHA = 0.7
"""Temperature and weight of the imitation against labels are the defaults of distillation."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a pruned model gets better again."""

    teacher: transformers.PreTrainedModel
    task: Task
    pooling: Pooling
    batches: Iterator[Batch]
    objectives: tuple[DistillationObjective, ...]
    """Hidden states too, while the number of layers is that of the teacher."""
    learning_rate: float
    """Of a model of width 384."""

    def run(self, model: transformers.PreTrainedModel, steps: int, tell: Tell) -> list[float]:
        """Train in place; the loss of every step. `model` keeps the mode (evaluation or training) it is in.

        Tables of tokens stay as they are: nothing went from them, and learning them takes a fifth of a step.
        """

        def step(batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                wanted = answer(self.teacher, batch, self.objectives, mixed=True)
            return imitation_loss(
                answer(model, batch, self.objectives, mixed=True),
                wanted,
                self.task,
                batch,
                self.objectives,
                temperature=_TEMPERATURE,
                alpha=_ALPHA,
                pooling=self.pooling,
            )

        rate = rate_for(model.config.hidden_size, rate=self.learning_rate)
        tables = model.get_input_embeddings().requires_grad_(False)
        try:
            return train(model.parameters(), step, self.batches, steps=steps, learning_rate=rate, tell=tell)
        finally:
            tables.requires_grad_(True)


@contextmanager
def enforced(model: torch.nn.Module, masks: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While inside, masked weights are zero in every forward pass and get no gradient; afterwards they are zero."""
    modules = [model.get_submodule(name) for name in masks]
    for module, mask in zip(modules, masks.values(), strict=True):
        torch_prune.custom_from_mask(module, "weight", mask)
    try:
        yield
    finally:
        for module in modules:
            torch_prune.remove(module, "weight")
