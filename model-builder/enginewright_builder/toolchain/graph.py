"""The encoder as one torch module: token states, pooling, normalisation; or class scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginewright_api.engine_description import HIDDEN_STATES, EngineDescription, Pooling
from enginewright_api.recipe import Task
from enginewright_builder.compression.structure import load_model

if TYPE_CHECKING:
    import torch

EXAMPLE_SHAPE = (2, 16)
"""Batch and tokens of the inputs a trace is made with; both stay dynamic."""


def load_encoder(checkpoint: Path, description: EngineDescription) -> torch.nn.Module:
    """The checkpoint in float32, in evaluation mode, taking the description's inputs in order.

    Modules that were trained quantised compute so: exporters find their quantisation in the graph. The last
    layer does not compute what the answer is not read from (`first_token`).

    Raises DeterministicError UnsupportedArchitecture when transformers does not know it, InvalidCheckpoint when
    tensors are missing or of another shape.
    """
    import torch

    from enginewright_builder.compression.quantization_aware import apply_quantizers
    from enginewright_builder.toolchain.first_token import first_token_only

    model = load_model(checkpoint, description.task)
    apply_quantizers(model, checkpoint)
    torch.manual_seed(0)
    if description.early_exit is not None and description.early_exit.part is not None:
        from enginewright_builder.toolchain.exit_parts import part_of

        return part_of(model, checkpoint, description.early_exit)
    if getattr(model.config, "attention_type", None) == "block_sparse":
        model.base_model.set_attention_type("original_full")  # what it does up to the limits (`check_length`)
    first_token_only(model, description)
    return _wrap(model, description)


def example_inputs(description: EngineDescription) -> dict[str, Any]:
    """Token ids with padding in the second row, so that a trace sees the mask at work."""
    import torch

    batch, tokens = EXAMPLE_SHAPE
    ids = torch.arange(batch * tokens, dtype=torch.int64).reshape(batch, tokens) % 90 + 5
    mask = torch.ones_like(ids)
    mask[1, tokens // 2 :] = 0
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    if description.early_exit is not None:
        generator = torch.Generator().manual_seed(0)
        values[HIDDEN_STATES] = torch.randn(batch, tokens, description.early_exit.width, generator=generator)
    return {name: values[name] for name in description.inputs}


def _wrap(model: Any, description: EngineDescription) -> torch.nn.Module:
    import torch

    names = tuple(description.inputs)

    class Encoder(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        """Positional inputs, one output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            given = dict(zip(names, inputs, strict=True))
            answer = self.model(**given)
            if description.task is not Task.EMBEDDING:
                return answer.logits
            vectors = _pool(answer.last_hidden_state, given["attention_mask"], description.pooling)
            return torch.nn.functional.normalize(vectors, dim=1) if description.normalize else vectors

    return Encoder().eval()


def _pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    if pooling is Pooling.CLS:
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
