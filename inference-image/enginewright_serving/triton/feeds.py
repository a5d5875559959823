"""Inputs of a graph by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_serving.triton.runner import Ids


def feed(names: Sequence[str], input_ids: Ids, attention_mask: Ids) -> dict[str, Ids]:
    """The tensors an encoder's graph asks for; one text has one segment, so token types are zero."""
    tensors: dict[str, Ids] = {}
    for name in names:
        if name == "input_ids":
            tensors[name] = input_ids
        elif name == "attention_mask":
            tensors[name] = attention_mask
        elif name == "token_type_ids":
            tensors[name] = np.zeros_like(input_ids)
        else:
            raise DeterministicError(
                "InvalidEngine",
                f"engine.json: inputs: {name!r} is none of input_ids, attention_mask and token_type_ids",
            )
    return tensors
