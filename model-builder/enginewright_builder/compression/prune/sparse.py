"""Weights, blocks and 2:4: zeros inside tensors that keep their shapes.

A dense kernel is no faster for zeros. What they are good for: hardware with 2:4 units, storage, and a search for how
little a model needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from enginewright_api.optimization import PruningGranularity
from enginewright_builder.compression.anatomy import layers_of, linears_of
from enginewright_builder.compression.prune.importance import weight_scores
from enginewright_builder.compression.prune.masks import (
    Masks,
    blocks_masks,
    sparsity_of,
    two_of_four_masks,
    weights_masks,
)
from enginewright_builder.compression.prune.recovery import enforced
from enginewright_builder.compression.prune.run import PruningRun

_FIELD = "optimization.pruning.granularity"


def sparsify(run: PruningRun) -> dict[str, Any]:
    """Zero weights step by step, training in between; what is zero stays zero. Result: sparsity and recovery."""
    model, granularity = run.model, run.settings.granularity
    layers_of(model, field=_FIELD)
    masks: Masks = {}
    recovery: list[dict[str, Any]] = []
    for number, step in enumerate(run.steps):
        tell = run.told(number, len(run.steps))
        masks = masks_for(granularity)(
            below(weight_scores(model, run.settings.criterion, run.probe), masks), step.sparsity
        )
        apply_masks(model, masks)
        tell(0.0, f"{granularity.value}: sparsity {sparsity_of(masks):.3f}")
        if step.recovery_steps:
            with enforced(model, masks):
                recovery.append(run.recover(step.recovery_steps, tell))
    return {"sparsity": sparsity_of(masks), "recovery": recovery}


def masks_for(granularity: PruningGranularity) -> Callable[[Mapping[str, torch.Tensor], float], Masks]:
    """Scores and sparsity to masks."""
    if granularity is PruningGranularity.TWO_OF_FOUR:
        return lambda scores, _: two_of_four_masks(scores)
    return blocks_masks if granularity is PruningGranularity.BLOCKS else weights_masks


def below(scores: dict[str, torch.Tensor], masks: Masks) -> dict[str, torch.Tensor]:
    """Scores where what is gone already ranks below everything else."""
    return {name: score.masked_fill(~masks[name], -1.0) if masks else score for name, score in scores.items()}


def apply_masks(model: torch.nn.Module, masks: Masks) -> None:
    """Zero what the masks drop."""
    with torch.no_grad():
        for name, module in linears_of(model):
            module.weight.mul_(masks[name])
