"""Training in mixed precision (Micikevicius 2018) on CPUs that multiply bf16 faster than float32.

Products take bf16 inputs and give bf16; weights, normalisations, losses and the optimiser's state stay float32. On a
Zen 4 a step of MiniLM's distillation takes 0.70 of its time in float32 (`python -m benchmarks.training`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from enginewright_api.cpu import gains_from_bf16
from enginewright_builder.machine import cpu_level


def call(model: Callable[..., Any], **inputs: Any) -> Any:
    """The model's output for its inputs, a transformers `ModelOutput`, with every tensor widened to float32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=_pays()):
        found = model(**inputs)
    return type(found)(**{name: _wide(value) for name, value in found.items()})


@cache
def _pays() -> bool:
    return gains_from_bf16(cpu_level())


def _wide(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_wide(each) for each in value)
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
