"""Inputs of a graph by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from enginewright_api.errors import DeterministicError
from enginewright_serving.triton.runner import Tensors


def feed(names: Sequence[str], tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    """The tensors that a graph asks for, in its order; without token types each text is one segment: all zero."""
    fed: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        if name in tensors:
            fed[name] = tensors[name]
        elif name == "token_type_ids":
            fed[name] = np.zeros_like(tensors["attention_mask"])
        else:
            raise DeterministicError(
                "InvalidEngine",
                f"engine.json: inputs: {name!r} is none of {', '.join(sorted({*tensors, 'token_type_ids'}))}",
            )
    return fed
