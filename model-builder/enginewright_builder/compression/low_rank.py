"""Weight matrices replaced by two thin factors: truncated singular value decomposition, SVD (Eckart and Young 1936)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import LowRank
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import layers_of, linears_of, thin_factors
from enginewright_builder.compression.counting import compared, size_of
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.compression.training import Tell


def factorize(checkpoint: Path, task: Task, settings: LowRank, into: Path, tell: Tell) -> dict[str, object]:
    """Checkpoint to checkpoint. Only linears inside layers: embeddings and output heads stay.

    Result: parameters and flops before and after; factorized, per module its rank and kept energy (share of the
    squared singular values); skipped, per module the rank asked for and why it does not pay.

    Raises DeterministicError: UnsupportedArchitecture, NothingFactorized when no module would get smaller.
    """
    model = load_model(checkpoint, task)
    layers_of(model, field="optimization.lowRank")
    before = size_of(model)
    factorized: dict[str, dict[str, float]] = {}
    skipped: dict[str, dict[str, object]] = {}
    linears = list(linears_of(model))
    for number, (name, linear) in enumerate(linears):
        tell(number / len(linears), name)
        outputs, inputs = linear.weight.shape
        # On the spot for a given rank, so that hopeless decompositions are not computed.
        if settings.rank is not None and not pays(settings.rank, inputs, outputs):
            skipped[name] = _skipped(settings.rank, inputs, outputs)
            continue
        left, values, right = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)
        rank = settings.rank or rank_for(values, settings.energy or 1.0)
        if not pays(rank, inputs, outputs):
            skipped[name] = _skipped(rank, inputs, outputs)
            continue
        model.set_submodule(name, _factors(linear, left[:, :rank], values[:rank], right[:rank]))
        factorized[name] = {"rank": rank, "energy": energy_of(values, rank)}
    if not factorized:
        raise DeterministicError("NothingFactorized", _nothing(settings, skipped))
    save_model(model, checkpoint, into)
    return {**compared(before, size_of(model)), "factorized": factorized, "skipped": skipped}


def rank_for(values: torch.Tensor, energy: float) -> int:
    """Smallest rank that keeps this share of the squared singular values (descending)."""
    kept = torch.cumsum(values.square(), 0)
    # Compared with the last sum itself: a share of 1 must not ask for more than there is.
    return min(len(values), int(torch.count_nonzero(kept < energy * kept[-1])) + 1)


def energy_of(values: torch.Tensor, rank: int) -> float:
    """Share of the squared singular values among the first `rank`."""
    squares = values.square()
    return float(squares[:rank].sum() / squares.sum().clamp(min=torch.finfo(squares.dtype).tiny))


def pays(rank: int, inputs: int, outputs: int) -> bool:
    """Whether two factors hold fewer weights than the matrix."""
    return rank * (inputs + outputs) < inputs * outputs


def _factors(linear: nn.Linear, left: torch.Tensor, values: torch.Tensor, right: torch.Tensor) -> nn.Sequential:
    """W = (U √S)(√S Vᵀ): the root on both sides keeps both factors of one size, which quantisation likes."""
    outputs, rank = left.shape
    found = thin_factors(right.shape[1], rank, outputs, bias=linear.bias is not None, like=linear.weight)
    root = values.sqrt()
    with torch.no_grad():
        found[0].weight.copy_(root[:, None] * right)
        found[1].weight.copy_(left * root)
        if linear.bias is not None:
            found[1].bias.copy_(linear.bias)
    return found


def _skipped(rank: int, inputs: int, outputs: int) -> dict[str, object]:
    return {
        "rank": rank,
        "reason": f"{rank} × ({inputs} + {outputs}) = {rank * (inputs + outputs)} weights are no fewer than"
        f" {inputs} × {outputs} = {inputs * outputs}",
    }


def _nothing(settings: LowRank, skipped: dict[str, dict[str, object]]) -> str:
    field = "rank" if settings.rank is not None else "energy"
    value = settings.rank if settings.rank is not None else settings.energy
    name, first = next(iter(skipped.items()))
    return f"optimization.lowRank.{field}: with {value} no module gets smaller ({name}: {first['reason']}); give less"
