"""Where the layers, attention heads and feed-forward neurons of a transformers model are.

Module names differ between architectures; the layouts cover BERT and its kin (RoBERTa, XLM-RoBERTa, ELECTRA),
DistilBERT, MPNet, DeBERTa from v2 on, and Llama and its kin (SmolLM2, Mistral, Qwen2, Qwen3, Gemma).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from enginewright_api.errors import DeterministicError


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one transformer layer."""

    attention: str
    query: str
    key: str
    value: str
    output: str
    expand: tuple[str, ...]
    contract: str
    heads_part: bool = True
    """Whether heads can go one by one; not where all layers share tables of positions that count every head."""


_LAYOUTS = (
    Layout(
        attention="attention.self",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        output="attention.output.dense",
        expand=("intermediate.dense",),
        contract="output.dense",
    ),
    Layout(
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        expand=("ffn.lin1",),
        contract="ffn.lin2",
    ),
    Layout(
        attention="attention.attn",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        expand=("intermediate.dense",),
        contract="output.dense",
        heads_part=False,
    ),
    Layout(
        attention="attention.self",
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        output="attention.output.dense",
        expand=("intermediate.dense",),
        contract="output.dense",
        heads_part=False,
    ),
    Layout(
        attention="self_attn",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        output="self_attn.o_proj",
        expand=("mlp.gate_proj", "mlp.up_proj"),
        contract="mlp.down_proj",
    ),
)
_HEAD_SIZES = ("attention_head_size", "head_dim")
_HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_heads")


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer, by names below the model."""

    path: str
    layout: Layout

    def name(self, part: str) -> str:
        """Full name of a part of the layout."""
        return f"{self.path}.{part}"

    @property
    def linears(self) -> tuple[str, ...]:
        """Full names of the layer's linear modules: attention first, then feed-forward."""
        layout = self.layout
        parts = (layout.query, layout.key, layout.value, layout.output, *layout.expand, layout.contract)
        return tuple(self.name(part) for part in parts)


@dataclass(frozen=True, slots=True)
class Heads:
    """Head counts of one attention module."""

    query: int
    key_value: int
    size: int

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.query // self.key_value


def find_layers(model: nn.Module) -> list[Layer]:
    """The stack of transformer layers; empty when the architecture has none of the known layouts."""
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        for layout in _LAYOUTS:
            if all(_has(layer, layout) for layer in module):
                return [Layer(f"{path}.{index}", layout) for index in range(len(module))]
    return []


def layers_of(model: nn.Module, *, field: str) -> list[Layer]:
    """Like `find_layers`. Raises DeterministicError UnsupportedArchitecture naming the field that asks for them."""
    found = find_layers(model)
    if not found:
        raise DeterministicError(
            "UnsupportedArchitecture",
            f"{field}: the layers of {type(model).__name__} are laid out in no way this builder knows"
            " (BERT, RoBERTa, DistilBERT, MPNet, DeBERTa, Llama, Mistral, Qwen and their kin are); leave it out",
        )
    return found


def layer_list(model: nn.Module, layers: list[Layer]) -> nn.ModuleList:
    """The module list that holds the layers."""
    found = model.get_submodule(layers[0].path.rpartition(".")[0])
    assert isinstance(found, nn.ModuleList)  # noqa: S101 - find_layers looks at nothing else
    return found


def heads_of(model: nn.Module, layer: Layer) -> Heads:
    """Head counts as the shapes of the linears say. Raises DeterministicError InvalidCheckpoint for broken heads."""
    attention = model.get_submodule(layer.name(layer.layout.attention))
    size = next(int(getattr(attention, name)) for name in _HEAD_SIZES if hasattr(attention, name))
    queries = shape_of(model.get_submodule(layer.name(layer.layout.query)))[1]
    keys = shape_of(model.get_submodule(layer.name(layer.layout.key)))[1]
    if queries % size or keys % size or queries % keys:
        raise DeterministicError(
            "InvalidCheckpoint",
            f"structure.json: {layer.name(layer.layout.attention)}: {queries} query and {keys} key features are no"
            f" whole heads of {size}, or no whole groups of heads",
        )
    return Heads(queries // size, keys // size, size)


def set_heads(model: nn.Module, layer: Layer) -> None:
    """Make the attention module's own counts agree with the shapes of its linears."""
    heads = heads_of(model, layer)
    attention = model.get_submodule(layer.name(layer.layout.attention))
    for name in _HEAD_COUNTS:
        if hasattr(attention, name):
            setattr(attention, name, heads.query)
    for name, value in (
        ("num_key_value_heads", heads.key_value),
        ("num_key_value_groups", heads.group),
        ("all_head_size", heads.query * heads.size),
    ):
        if hasattr(attention, name):
            setattr(attention, name, value)


def shape_of(module: nn.Module) -> tuple[int, int]:
    """(input features, output features) of a linear or of two thin factors."""
    if isinstance(module, nn.Sequential):
        return shape_of(module[0])[0], shape_of(module[-1])[1]
    assert isinstance(module, nn.Linear)  # noqa: S101 - layouts name nothing else
    return module.in_features, module.out_features


def linears_of(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linears inside the transformer layers, by name: embeddings and output heads are not among them."""
    for layer in find_layers(model):
        for name in layer.linears:
            module = model.get_submodule(name)
            if isinstance(module, nn.Linear):
                yield name, module


def thin_factors(
    inputs: int, rank: int, outputs: int, *, bias: bool, like: torch.Tensor | None = None
) -> nn.Sequential:
    """Two linears in a row, uninitialised by intent: (inputs → rank) without bias, (rank → outputs)."""
    place = {} if like is None else {"device": like.device, "dtype": like.dtype}
    return nn.Sequential(nn.Linear(inputs, rank, bias=False, **place), nn.Linear(rank, outputs, bias=bias, **place))


def _has(layer: nn.Module, layout: Layout) -> bool:
    names = {name for name, _ in layer.named_modules()}
    parts = (layout.query, layout.key, layout.value, layout.output, *layout.expand, layout.contract)
    attention = dict(layer.named_modules()).get(layout.attention)
    return all(part in names for part in parts) and any(hasattr(attention, name) for name in _HEAD_SIZES)
