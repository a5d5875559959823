"""Architectures whose computation depends on how long a text is; a graph made from one example is wrong for others."""

from __future__ import annotations

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Limits
from enginewright_builder.sources.checkpoint import Checkpoint

_CUT_IN_PYTHON = frozenset({"led", "longformer", "nystromformer", "reformer"})
"""Values of model_type: their attention cuts a text into pieces, and how many is decided outside the graph."""


def check_length(checkpoint: Checkpoint, limits: Limits) -> None:
    """Raises DeterministicError UnsupportedArchitecture, for BigBird only where texts may be so long that it matters.

    BigBird's blocks are skipped above (5 + 2 · random blocks) · block size tokens; up to there its attention is full
    (transformers' `BigBirdModel.forward`), and `load_encoder` asks for just that.
    """
    config = checkpoint.config
    kind = str(config.get("model_type") or "")
    if kind in _CUT_IN_PYTHON:
        raise DeterministicError(
            "UnsupportedArchitecture",
            f"config.json: the attention of {checkpoint.architecture} cuts each text into pieces by its length, which a"
            " compiled graph cannot follow; take a model with full or sliding-window attention, such as ModernBERT",
        )
    if kind == "big_bird" and config.get("attention_type", "block_sparse") == "block_sparse":
        blocks, size = int(config.get("num_random_blocks", 3)), int(config.get("block_size", 64))
        full = (5 + 2 * blocks) * size
        if limits.max_input_tokens > full:
            raise DeterministicError(
                "UnsupportedArchitecture",
                f"engine.limits.maxInputTokens: {limits.max_input_tokens} is more than the {full} tokens up to which"
                f" {checkpoint.architecture} attends to all of a text; for longer ones it skips blocks, which a"
                f" compiled graph cannot follow; give at most {full}",
            )
