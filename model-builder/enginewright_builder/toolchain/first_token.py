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
    own = getattr(getattr(last, "attention", None), "self", None)
    if own is None or type(own).__name__ not in _ATTENTION:
        return False
    if own.is_decoder or last.add_cross_attention:
        return False
    last.attention.forward = MethodType(_attention, last.attention)
    own.forward = MethodType(_self_attention, own)
    return True


def _is_read(model: Any, description: EngineDescription) -> bool:
    if description.task is Task.EMBEDDING:
        return description.pooling is Pooling.CLS
    return description.task in (Task.CLASSIFICATION, Task.RERANKING) and type(model).__name__.endswith(_CLASSIFIER)


def _attention(
    attention: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """In the place of the attention block's own: states [batch, tokens, width] to [batch, 1, width]."""
    context = attention.self(hidden_states, attention_mask)
    return attention.output(context, hidden_states[:, :1]), None


def _self_attention(attention: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """In the place of self-attention's own. Each module calls its own parts: exporters name nodes by who calls."""
    first = hidden_states[:, :1]
    query, key, value = (
        linear(states).view(*states.shape[:-1], -1, attention.attention_head_size).transpose(1, 2)
        for linear, states in (
            (attention.query, first),
            (attention.key, hidden_states),
            (attention.value, hidden_states),
        )
    )
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    context = _attended(query, key, value, mask, attention)
    return context.transpose(1, 2).reshape(*first.shape[:-1], -1)


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, attention: Any
) -> torch.Tensor:
    """As the model's own implementation says: spelt out where that is eager, whose mask is added."""
    if attention.config._attn_implementation != "eager":
        return functional.scaled_dot_product_attention(query, key, value, mask, scale=attention.scaling)
    scores = query @ key.transpose(2, 3) * attention.scaling
    return torch.softmax(scores if mask is None else scores + mask, dim=-1) @ value
