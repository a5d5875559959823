"""Remove neurons, heads and layers so that tensors really become smaller.

Torch-Pruning finds coupled dimensions by tracing; for transformers it must be told the heads, forgets the module's
own counts, and cannot say what it did in a checkpoint. The layouts of `anatomy` hold that knowledge anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import prune_linear_layer

from enginewright_builder.compression.anatomy import Layer, heads_of, layer_list, set_heads, shape_of

_WIDTHS = ("intermediate_size", "hidden_dim")
_BY_LAYER = ("layer_types",)


def keep_neurons(model: nn.Module, layer: Layer, kept: Sequence[int]) -> None:
    """Keep these feed-forward neurons of a layer, in this order."""
    for part in layer.layout.expand:
        _select(model, layer.name(part), kept, dim=0)
    _select(model, layer.name(layer.layout.contract), kept, dim=1)


def keep_heads(model: nn.Module, layer: Layer, kept: Sequence[int]) -> None:
    """Keep these key-value groups of a layer (a key and value head with all query heads that share them)."""
    heads, layout = heads_of(model, layer), layer.layout
    keys = _spread(kept, heads.size)
    queries = _spread(kept, heads.group * heads.size)
    _select(model, layer.name(layout.query), queries, dim=0)
    _select(model, layer.name(layout.key), keys, dim=0)
    _select(model, layer.name(layout.value), keys, dim=0)
    _select(model, layer.name(layout.output), queries, dim=1)
    set_heads(model, layer)


def keep_layers(model: transformers.PreTrainedModel, layers: list[Layer], kept: Sequence[int]) -> None:
    """Keep these layers, in order; the config, which counts and lists layers, follows."""
    old = layer_list(model, layers)
    model.set_submodule(layers[0].path.rpartition(".")[0], nn.ModuleList([old[index] for index in kept]))
    for number, index in enumerate(kept):
        for module in old[index].modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    config = model.config
    config.num_hidden_layers = len(kept)
    for name in _BY_LAYER:
        listed = getattr(config, name, None)
        if listed is not None:
            setattr(config, name, [listed[index] for index in kept])


def say_widths(model: transformers.PreTrainedModel, layers: list[Layer]) -> None:
    """Write what all layers have in common (feed-forward width, head counts) into the config, where it has a field."""
    config = model.config
    widths = {shape_of(model.get_submodule(layer.name(layer.layout.contract)))[0] for layer in layers}
    for name in _WIDTHS:
        if hasattr(config, name) and len(widths) == 1:
            setattr(config, name, widths.pop())
            break
    heads = {heads_of(model, layer) for layer in layers}
    if says_heads(model) and len(heads) == 1:
        common = heads.pop()
        config.head_dim = common.size
        config.num_attention_heads, config.num_key_value_heads = common.query, common.key_value


def says_heads(model: transformers.PreTrainedModel) -> bool:
    """Whether config.json can give a number of heads that is not the width divided by their size."""
    return hasattr(model.config, "num_key_value_heads")


def _select(model: nn.Module, name: str, kept: Sequence[int], *, dim: int) -> None:
    with torch.no_grad():
        model.set_submodule(name, prune_linear_layer(model.get_submodule(name), torch.tensor(kept), dim))


def _spread(pieces: Sequence[int], size: int) -> list[int]:
    return [piece * size + offset for piece in pieces for offset in range(size)]
