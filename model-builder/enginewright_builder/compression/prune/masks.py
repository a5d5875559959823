"""Which weights stay, from scores: pure functions of tensors, exact to the weight.

torch.nn.utils.prune has a global selection too (`global_unstructured`), but neither blocks nor 2:4 nor a target for
the *total* as sparsity grows step by step; the masks it applies during training are used as they are (`recovery`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from enginewright_api.errors import DeterministicError

BLOCK = (16, 16)
"""Rows and columns of a block: divides the dimensions of common models and fills whole vector registers."""
_GROUP, _KEPT = 4, 2

Masks = dict[str, torch.Tensor]
"""By module name: bool, shape of its weight, True where the weight stays."""


def weights_masks(scores: Mapping[str, torch.Tensor], sparsity: float) -> Masks:
    """Drop the round(sparsity · n) lowest of all n scores together; of equal ones, the first in the order given."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    dropped = round(sparsity * flat.numel())
    keep = torch.ones_like(flat, dtype=torch.bool)
    if dropped:
        threshold = float(np.partition(flat.numpy(), dropped - 1)[dropped - 1])
        keep &= flat >= threshold
        ties = torch.nonzero(flat == threshold).flatten()
        keep[ties[: dropped - int((~keep).sum())]] = False
    parts = keep.split([score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def blocks_masks(scores: Mapping[str, torch.Tensor], sparsity: float) -> Masks:
    """Drop whole blocks of 16 × 16, those with the lowest sums of scores in all modules together.

    Raises DeterministicError BlocksDoNotFit for a module whose dimensions are no multiples of 16.
    """
    rows, columns = BLOCK
    sums = {}
    for name, score in scores.items():
        outputs, inputs = score.shape
        if outputs % rows or inputs % columns:
            raise DeterministicError(
                "BlocksDoNotFit",
                f"optimization.pruning.granularity: Blocks are {rows} × {columns}, which does not divide"
                f" {name} ({outputs} × {inputs}); choose Weights or TwoOfFour",
            )
        sums[name] = score.reshape(outputs // rows, rows, inputs // columns, columns).sum((1, 3))
    return {
        name: mask.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        for name, mask in weights_masks(sums, sparsity).items()
    }


def two_of_four_masks(scores: Mapping[str, torch.Tensor]) -> Masks:
    """Keep the two highest of every four neighbours along the input dimension (Mishra et al. 2021, 2:4 sparsity).

    Raises DeterministicError BlocksDoNotFit when the input dimension is no multiple of four.
    """
    masks = {}
    for name, score in scores.items():
        outputs, inputs = score.shape
        if inputs % _GROUP:
            raise DeterministicError(
                "BlocksDoNotFit",
                f"optimization.pruning.granularity: TwoOfFour needs inputs in fours; {name} has {inputs}",
            )
        groups = score.reshape(outputs, inputs // _GROUP, _GROUP)
        best = groups.argsort(dim=2, descending=True, stable=True)[..., :_KEPT]
        masks[name] = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, best, True).reshape(outputs, inputs)
    return masks


def sparsity_of(masks: Masks) -> float:
    """Share of the weights that is dropped."""
    total: int = sum(mask.numel() for mask in masks.values())
    return 1.0 - sum(int(mask.sum()) for mask in masks.values()) / total
