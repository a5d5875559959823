"""The three modules of a classifier with an early exit, as exporters take them: positional inputs, one output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from enginewright_api.engine_description import ExitPart, ExitPoint
from enginewright_builder.compression.anatomy import layers_of
from enginewright_builder.compression.early_exit import FIELD, ExitHead, load_head
from enginewright_builder.compression.shrink import keep_layers


def part_of(model: Any, checkpoint: Path, exit_: ExitPoint) -> nn.Module:
    """One part of a model, which is taken apart. Exporters look at its `model`."""
    layers = layers_of(model, field=FIELD)
    if exit_.part is ExitPart.HEAD:
        return _Head(model, load_head(checkpoint)).eval()
    if exit_.part is ExitPart.FIRST:
        keep_layers(model, layers, range(exit_.layer))
        return _First(model.base_model).eval()
    keep_layers(model, layers, range(exit_.layer, len(layers)))
    base = model.base_model
    base.embeddings = _Given()
    if hasattr(base, "embeddings_project"):  # ELECTRA, whose embeddings are narrower than its layers
        base.embeddings_project = nn.Identity()
    return _Rest(model).eval()


class _Given(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """In the place of embeddings: gives what it is given, so that layers go on with states."""

    def forward(self, *given: Any, inputs_embeds: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        # DistilBERT gives them by place: (input_ids, inputs_embeds, position_ids), of which the others are None.
        return next(each for each in (inputs_embeds, *given) if each is not None)


class _First(nn.Module):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        names = ("input_ids", "attention_mask", "token_type_ids")
        found: torch.Tensor = self.model(**dict(zip(names, inputs, strict=False))).last_hidden_state
        return found


class _Head(nn.Module):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, model: Any, head: ExitHead) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(hidden_states, attention_mask)
        return found


class _Rest(nn.Module):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(inputs_embeds=hidden_states, attention_mask=attention_mask).logits
        return found
