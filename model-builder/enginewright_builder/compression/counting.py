"""How large a model is: parameters, those that are not zero, floating-point operations of one input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

FLOPS_TOKENS = 128
"""Length of the one text that operations are counted for."""


@dataclass(frozen=True, slots=True)
class Size:
    """What one model needs. A tensor under two names (tied embeddings) counts once."""

    parameters: int
    non_zero: int
    flops: int
    """Of one text of FLOPS_TOKENS tokens, two a multiply-add. Zeros count: dense kernels multiply by them too."""


def size_of(model: torch.nn.Module) -> Size:
    """Count by running one text through the model under torch's own operation counter."""
    parameters = list(model.parameters())
    tokens = torch.zeros(1, FLOPS_TOKENS, dtype=torch.int64)
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if isinstance(limit, int) and limit < FLOPS_TOKENS + 2:
        tokens = tokens[:, : max(1, limit - 2)]
    counter = FlopCounterMode(display=False)
    # The fused attention of CPUs is unknown to the counter; its plain form is the same products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return Size(
        parameters=sum(parameter.numel() for parameter in parameters),
        non_zero=sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        flops=int(counter.get_total_flops()),
    )


def compared(before: Size, after: Size) -> dict[str, Any]:
    """The figures every transform reports, as JSON values."""
    return {
        "parameters": after.parameters,
        "parametersBefore": before.parameters,
        "nonZeroParameters": after.non_zero,
        "flops": after.flops,
        "flopsBefore": before.flops,
    }
