"""The last layer for the first token alone, where that is all that the answer is read from.

Keys and values are of all tokens; queries, the output of attention and the feed-forward part of the first. Nothing
that is read changes, and five sixths of a layer of BERT's shape need not be computed.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch.nn import functional

from enginewright_api.engine_description import EngineDescription, Pooling
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import find_layers

_ATTENTION = frozenset(
    f"{name}SelfAttention" for name in ("Bert", "Camembert", "Electra", "Roberta", "XLMRoberta")
)  # fmt: skip
"""Every query looks at all keys. Others look at some, or at their distances."""
_CLASSIFIER = "ForSequenceClassification"
"""Of these architectures they read the first token's state."""


def first_token_only(model: Any, description: EngineDescription) -> bool:
    """Change the last layer in place so that it gives states [batch, 1, width]. Returns whether that was right."""
    layers = find_layers(model)
    if not layers or not _is_read(model, description):
        return False
    last = model.get_submodule(layers[-1].path)
    attention = getattr(getattr(last, "attention", None), "self", None)
    if attention is None or type(attention).__name__ not in _ATTENTION:
        return False
    if attention.is_decoder or last.add_cross_attention:
        return False
    last.forward = MethodType(_forward, last)
    return True


def _is_read(model: Any, description: EngineDescription) -> bool:
    if description.task is Task.EMBEDDING:
        return description.pooling is Pooling.CLS
    return description.task in (Task.CLASSIFICATION, Task.RERANKING) and type(model).__name__.endswith(_CLASSIFIER)


def _forward(
    layer: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
) -> torch.Tensor:
    """In the place of the layer's own: states [batch, tokens, width] to [batch, 1, width]."""
    attention, first = layer.attention, hidden_states[:, :1]
    query, key, value = (
        linear(states).unflatten(-1, (-1, attention.self.attention_head_size)).transpose(1, 2)
        for linear, states in (
            (attention.self.query, first),
            (attention.self.key, hidden_states),
            (attention.self.value, hidden_states),
        )
    )
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    context = functional.scaled_dot_product_attention(query, key, value, mask, scale=attention.self.scaling)
    answer: torch.Tensor = layer.feed_forward_chunk(attention.output(context.transpose(1, 2).flatten(2), first))
    return answer
