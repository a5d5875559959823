"""Neurons, heads and layers: which ones go. Tensors shrink; what is left runs faster on every engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import transformers

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Pruning, PruningCriterion, PruningGranularity
from enginewright_builder.compression.anatomy import heads_of, layers_of, shape_of
from enginewright_builder.compression.prune.importance import Probe, head_scores, layer_scores, neuron_scores
from enginewright_builder.compression.prune.reconstruction import Inputs, inputs_of_heads, look
from enginewright_builder.compression.prune.run import PruningRun
from enginewright_builder.compression.shrink import keep_heads, keep_layers, keep_neurons, say_widths, says_heads

_FIELD = "optimization.pruning.granularity"
_WIDTH_MULTIPLE = 8
_WIDE = 64

Remover = Callable[[float], dict[str, Any]]
"""Prunes to a share of the *original* pieces and says what it kept."""


def shrink(run: PruningRun) -> dict[str, Any]:
    """Remove pieces step by step, training in between. Result: what was kept, sparsity, recovery.

    Raises DeterministicError: UnsupportedArchitecture, TooSparse when nothing would be left or nothing would go.
    """
    _check_whole(run.model)
    remove = {
        PruningGranularity.NEURONS: _neurons,
        PruningGranularity.HEADS: _heads,
        PruningGranularity.LAYERS: _layers,
        PruningGranularity.HEADS_AND_NEURONS: _heads_and_neurons,
    }[run.settings.granularity](run.model, run.settings, run.probe)
    report: dict[str, Any] = {}
    recovery: list[dict[str, Any]] = []
    for number, step in enumerate(run.steps):
        tell = run.told(number, len(run.steps))
        report = remove(step.sparsity)
        tell(0.0, f"{run.settings.granularity.value}: sparsity {report['sparsity']:.3f}")
        if step.recovery_steps:
            recovery.append(run.recover(step.recovery_steps, tell))
    return {**report, "recovery": recovery}


def _neurons(model: transformers.PreTrainedModel, pruning: Pruning, probe: Probe) -> Remover:
    """The same number in each layer, so that config.json says it; wide layers keep a multiple of 8.

    Kernels work in such widths, and group-wise quantisation needs them.
    """
    width = min(
        shape_of(model.get_submodule(layer.name(layer.layout.contract)))[0] for layer in layers_of(model, field=_FIELD)
    )
    _check("neurons of a layer", width, kept_neurons(width, pruning.sparsity), pruning)

    def remove(sparsity: float) -> dict[str, Any]:
        layers = layers_of(model, field=_FIELD)
        names = [layer.name(layer.layout.contract) for layer in layers]
        kept = kept_neurons(width, sparsity)
        inputs = _looked(model, names, pruning, probe)
        if inputs is None:
            scores = neuron_scores(model, layers, pruning.criterion, probe)
        else:
            scores = [inputs.scores(name, inputs.linears[name].in_features, kept=kept) for name in names]
        for layer, name, each in zip(layers, names, scores, strict=True):
            chosen = highest(each, kept)
            if inputs is not None:
                inputs.compensate(name, chosen)
            keep_neurons(model, layer, chosen)
        say_widths(model, layers)
        return {"neurons": kept, "neuronsBefore": width, "sparsity": 1.0 - kept / width}

    return remove


def _heads_and_neurons(model: transformers.PreTrainedModel, pruning: Pruning, probe: Probe) -> Remover:
    """The same share of both: each layer becomes thinner as a whole."""
    heads, neurons = _heads(model, pruning, probe), _neurons(model, pruning, probe)

    def remove(sparsity: float) -> dict[str, Any]:
        return {**heads(sparsity), **neurons(sparsity)}

    return remove


def _heads(model: transformers.PreTrainedModel, pruning: Pruning, probe: Probe) -> Remover:
    """Whole key-value groups.

    Where config.json can give the number of heads (Llama and its kin) each layer loses the same number; elsewhere
    the least important of the whole model go, and each layer keeps at least one.
    """
    layers = layers_of(model, field=_FIELD)
    if not layers[0].layout.heads_part:
        raise DeterministicError(
            "UnsupportedArchitecture",
            f"{_FIELD}: all heads of {type(model).__name__} share tables of positions, so that none can go alone; ask"
            " for Neurons or Layers",
        )
    before = [heads_of(model, layer) for layer in layers]
    total, uniform = sum(heads.key_value for heads in before), says_heads(model)
    if uniform:
        groups = min(heads.key_value for heads in before)
        _check("key-value groups of a layer", groups, groups - round(pruning.sparsity * groups), pruning)
    else:
        _check("heads", total, total - round(pruning.sparsity * total), pruning, at_least=len(layers), unit="layer")
    alive = [list(range(heads.key_value)) for heads in before]

    def remove(sparsity: float) -> dict[str, Any]:
        names = [layer.name(layer.layout.output) for layer in layers]
        inputs = _looked(model, names, pruning, probe)
        if inputs is None:
            scores = head_scores(model, layers, pruning.criterion, probe)
        else:
            scores = [inputs.scores(name, len(groups)) for name, groups in zip(names, alive, strict=True)]
        if uniform:
            kept = [
                highest(each, heads.key_value - round(sparsity * heads.key_value))
                for each, heads in zip(scores, before, strict=True)
            ]
        else:
            kept = highest_together(scores, total - round(sparsity * total))
        for number, layer in enumerate(layers):
            if inputs is not None:
                inputs.compensate(names[number], inputs_of_heads(model, layer, kept[number]))
            keep_heads(model, layer, kept[number])
            alive[number] = [alive[number][index] for index in kept[number]]
        say_widths(model, layers)
        return {
            "heads": {layer.path: names for layer, names in zip(layers, alive, strict=True)},
            "sparsity": 1.0 - sum(len(names) for names in alive) / total,
        }

    return remove


def _looked(model: transformers.PreTrainedModel, names: list[str], pruning: Pruning, probe: Probe) -> Inputs | None:
    return look(model, names, probe.batches) if pruning.criterion is PruningCriterion.RECONSTRUCTION else None


def _layers(model: transformers.PreTrainedModel, pruning: Pruning, probe: Probe) -> Remover:
    total = len(layers_of(model, field=_FIELD))
    _check("layers", total, total - round(pruning.sparsity * total), pruning)
    alive = list(range(total))

    def remove(sparsity: float) -> dict[str, Any]:
        layers = layers_of(model, field=_FIELD)
        scores = layer_scores(model, layers, pruning.criterion, probe)
        kept = highest(scores, total - round(sparsity * total))
        keep_layers(model, layers, kept)
        alive[:] = [alive[index] for index in kept]
        return {"layers": list(alive), "layersBefore": total, "sparsity": 1.0 - len(alive) / total}

    return remove


def kept_neurons(width: int, sparsity: float) -> int:
    """How many of `width` stay: the nearest whole number, in wide layers rounded up to a multiple of 8."""
    kept = round(width * (1.0 - sparsity))
    return min(width, math.ceil(kept / _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE) if width >= _WIDE else kept


def highest(scores: torch.Tensor, count: int) -> list[int]:
    """Indices of the highest scores, ascending; of equal ones the first."""
    order = torch.argsort(scores, descending=True, stable=True)[:count]
    return sorted(int(index) for index in order)


def highest_together(scores: list[torch.Tensor], count: int) -> list[list[int]]:
    """Indices per list of the `count` highest scores of all lists together; each list keeps its best one."""
    best = [int(torch.argmax(each)) for each in scores]
    rest = sorted(
        (-float(score), number, index)
        for number, each in enumerate(scores)
        for index, score in enumerate(each)
        if index != best[number]
    )
    kept = [[index] for index in best]
    for _, number, index in rest[: count - len(scores)]:
        kept[number].append(index)
    return [sorted(indices) for indices in kept]


def _check(pieces: str, total: int, kept: int, pruning: Pruning, *, at_least: int = 1, unit: str = "model") -> None:
    if kept < at_least:
        needed = "none" if not kept else f"only {kept}, fewer than one a {unit}"
        raise DeterministicError(
            "TooSparse",
            f"optimization.pruning.sparsity: {pruning.sparsity} of {total} {pieces} leaves {needed};"
            f" at most {1.0 - at_least / total:.2f} can go",
        )
    if kept == total:
        raise DeterministicError(
            "TooSparse",
            f"optimization.pruning.sparsity: {pruning.sparsity} of {total} {pieces} removes none; give more",
        )


def _check_whole(model: transformers.PreTrainedModel) -> None:
    for layer in layers_of(model, field=_FIELD):
        for name in layer.linears:
            if not isinstance(model.get_submodule(name), torch.nn.Linear):
                raise DeterministicError(
                    "UnsupportedArchitecture",
                    f"{_FIELD}: {name} is two thin factors already, which have no neurons or heads to remove;"
                    " prune before factorising",
                )
