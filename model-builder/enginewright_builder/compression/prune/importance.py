"""What a weight, a neuron, a head or a layer counts for.

Magnitude looks at the weights alone. Gradient is the first-order Taylor criterion |w · g| (Molchanov et al. 2017;
heads: Michel et al. 2019), g taken on rows; for layers it is the block influence of ShortGPT (Men et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from enginewright_api.engine_description import Pooling
from enginewright_api.optimization import PruningCriterion
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import Layer, heads_of, linears_of, shape_of
from enginewright_builder.compression.imitation import label_loss, pooled
from enginewright_builder.compression.training import Batch

_SEED = 11
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Probe:
    """Batches that gradients are taken on; empty for Magnitude."""

    task: Task
    pooling: Pooling
    batches: tuple[Batch, ...]

    def backward(self, model: torch.nn.Module) -> Iterator[None]:
        """Per batch: gradients are in place while the caller looks."""
        generator = torch.Generator().manual_seed(_SEED)
        for batch in self.batches:
            model.zero_grad(set_to_none=True)
            self._loss(model, batch, generator).backward()
            yield
        model.zero_grad(set_to_none=True)

    def _loss(self, model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The labels' loss; without labels, the answer along a random direction.

        A model's distance to itself has no gradient. The square of the answer's derivative along random directions
        has as its mean the squared first-order change of the answer (Hutchinson's estimator): what moves the answer
        when it goes counts.
        """
        answer = model(**batch.inputs())
        labelled = label_loss(answer, self.task, batch)
        if labelled is not None:
            return labelled
        if self.task is Task.EMBEDDING:
            value = functional.normalize(pooled(answer.last_hidden_state, batch.attention_mask, self.pooling), dim=1)
        else:
            value = answer.logits
            if value.dim() > 2:  # one answer a token: padding has none, nor have special tokens that are labelled
                mask = batch.text_mask if self.task is Task.TOKEN_CLASSIFICATION else None
                value = value * (batch.attention_mask if mask is None else mask).unsqueeze(-1)
        return (value * torch.randn(value.shape, generator=generator)).sum() / len(batch.input_ids)


def weight_scores(model: torch.nn.Module, criterion: PruningCriterion, probe: Probe) -> dict[str, torch.Tensor]:
    """|w|, or |w · g| averaged over the batches, of every linear in the layers."""
    linears = dict(linears_of(model))
    if criterion is not PruningCriterion.GRADIENT:
        return {name: module.weight.detach().abs() for name, module in linears.items()}
    scores = {name: torch.zeros_like(module.weight, requires_grad=False) for name, module in linears.items()}
    for _ in probe.backward(model):
        for name, module in linears.items():
            scores[name] += (module.weight.detach() * module.weight.grad).abs()
    return scores


def neuron_scores(
    model: torch.nn.Module, layers: list[Layer], criterion: PruningCriterion, probe: Probe
) -> list[torch.Tensor]:
    """Per layer, of every feed-forward neuron [width].

    Magnitude: L2 norm of its rows and its column. Gradient: E|Σ w · g| over its column, which is the derivative of
    the loss by a gate on the neuron.
    """
    contract = [(layer.name(layer.layout.contract), _inputs(model, layer.layout.contract, layer)) for layer in layers]
    if criterion is PruningCriterion.GRADIENT:
        return _gate_scores(model, contract, probe)
    return [
        _norms(model, [layer.name(part) for part in layer.layout.expand], column, width)
        for layer, (column, width) in zip(layers, contract, strict=True)
    ]


def head_scores(
    model: torch.nn.Module, layers: list[Layer], criterion: PruningCriterion, probe: Probe
) -> list[torch.Tensor]:
    """Per layer, of every key-value group of heads [groups], divided by the layer's L2 norm.

    The division makes layers comparable (Molchanov et al. 2017, Michel et al. 2019). Criteria as for neurons; the
    columns are those of the attention's output.
    """
    outputs = [(layer.name(layer.layout.output), heads_of(model, layer).key_value) for layer in layers]
    if criterion is PruningCriterion.GRADIENT:
        found = _gate_scores(model, outputs, probe)
    else:
        found = [
            _norms(
                model,
                [layer.name(part) for part in (layer.layout.query, layer.layout.key, layer.layout.value)],
                *output,
            )
            for layer, output in zip(layers, outputs, strict=True)
        ]
    return [scores / scores.norm().clamp(min=_TINY) for scores in found]


def layer_scores(
    model: torch.nn.Module, layers: list[Layer], criterion: PruningCriterion, probe: Probe
) -> torch.Tensor:
    """Of every layer [layers].

    Magnitude: root mean square of its linears' weights. Gradient: 1 - cosine of the states before and after the
    layer, averaged over real tokens.
    """
    if criterion is PruningCriterion.GRADIENT:
        return _block_influence(model, layers, probe)
    found = []
    for layer in layers:
        weights = torch.cat([_weight(model, name).flatten() for name in layer.linears])
        found.append(weights.square().mean().sqrt())
    return torch.stack(found)


def _gate_scores(model: torch.nn.Module, columns: list[tuple[str, int]], probe: Probe) -> list[torch.Tensor]:
    """(linear, number of equal pieces its input columns form) → E|Σ w · g| of each piece."""
    scores = [torch.zeros(pieces) for _, pieces in columns]
    for _ in probe.backward(model):
        for number, (name, pieces) in enumerate(columns):
            weight = model.get_submodule(name).weight
            scores[number] += (weight.detach() * weight.grad).sum(0).reshape(pieces, -1).sum(1).abs()
    return scores


def _norms(model: torch.nn.Module, rows: list[str], column: str, pieces: int) -> torch.Tensor:
    """L2 norm of each piece's rows of some linears and columns of one."""
    squares = _weight(model, column).square().sum(0).reshape(pieces, -1).sum(1)
    for name in rows:
        squares = squares + _weight(model, name).square().sum(1).reshape(pieces, -1).sum(1)
    return squares.sqrt()


def _block_influence(model: torch.nn.Module, layers: list[Layer], probe: Probe) -> torch.Tensor:
    cosines = torch.zeros(len(layers), dtype=torch.float64)
    tokens = 0
    seen: dict[int, torch.Tensor] = {}

    def look(index: int, given: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        before = given[0] if given else named["hidden_states"]
        after = result[0] if isinstance(result, tuple) else result
        seen[index] = functional.cosine_similarity(before, after, dim=-1)

    hooks = [
        model.get_submodule(layer.path).register_forward_hook(
            lambda _, given, named, result, index=index: look(index, given, named, result), with_kwargs=True
        )
        for index, layer in enumerate(layers)
    ]
    try:
        with torch.no_grad():
            for batch in probe.batches:
                model(**batch.inputs())
                tokens += int(batch.attention_mask.sum())
                for index, cosine in seen.items():
                    cosines[index] += float((cosine * batch.attention_mask).sum())
    finally:
        for hook in hooks:
            hook.remove()
    return 1.0 - cosines / max(1, tokens)


def _weight(model: torch.nn.Module, name: str) -> torch.Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 - layouts name linears only
    return weight.detach()


def _inputs(model: torch.nn.Module, part: str, layer: Layer) -> int:
    return shape_of(model.get_submodule(layer.name(part)))[0]
