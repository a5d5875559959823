"""How many tokens a model can tell apart by place, and the limits that follow; config.json alone says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Limits
from enginewright_builder.sources.field import DRAFT

_ROBERTA_LIKE_OFFSET = 2
"""Models of RoBERTa's family number positions from pad_token_id + 1, so two of their positions are never used."""


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Longest input the positions allow; None when the model has no such limit."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    roberta = "roberta" in str(config.get("model_type", "")) or config.get("model_type") == "mpnet"
    return positions - _ROBERTA_LIKE_OFFSET if roberta else positions


def context_tokens(config: Mapping[str, Any], limits: Limits) -> int:
    """Tokens that a prompt and its answer may take together."""
    longest = limits.max_input_tokens + limits.max_output_tokens
    return min(longest, positions_of(config) or longest)


def check_limits(config: Mapping[str, Any], recipe: Recipe) -> None:
    """Raises DeterministicError LimitExceeded for inputs longer than the model's positions.

    Of text generation, when no answer fits beside the longest prompt.
    """
    positions = positions_of(config)
    if positions is None:
        return
    limits, architecture = recipe.limits, config["architectures"][0]
    if recipe.task is Task.TEXT_GENERATION:
        for field, wanted in (
            ("maxInputTokens", limits.max_input_tokens),
            ("maxOutputTokens", limits.max_output_tokens),
        ):
            if wanted >= positions:
                raise DeterministicError(
                    "LimitExceeded",
                    f"engine.limits.{field}: {wanted} leaves no room in the {positions} positions of"
                    f" {architecture}, which prompt and answer share; set it to {positions - 1} at most",
                )
    elif limits.max_input_tokens > positions:
        raise DeterministicError(
            "LimitExceeded",
            f"engine.limits.maxInputTokens: {limits.max_input_tokens} is more than the {positions} positions of"
            f" {architecture}; set it to {positions} at most",
        )


def check_draft_limits(draft: Mapping[str, Any], tokens: int) -> None:
    """Raises DeterministicError LimitExceeded for a draft with fewer positions than prompt and answer take tokens."""
    positions = positions_of(draft)
    if positions is not None and positions < tokens:
        raise DeterministicError(
            "LimitExceeded",
            f"{DRAFT}: the draft's {positions} positions do not hold the {tokens} tokens that prompt and answer"
            " may take; lower engine.limits or choose another draft",
        )
