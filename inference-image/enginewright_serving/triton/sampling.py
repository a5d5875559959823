"""How one answer is drawn: the parameters of a request, checked against what the engine can do."""

from __future__ import annotations

from dataclasses import dataclass

from enginewright_api.engine_description import EngineDescription, Generation
from enginewright_api.errors import DeterministicError

MAX_ANSWERS = 16
"""Most answers to one prompt."""

MAX_STOPS = 16
"""Most stop strings of one request."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Parameters of one request, named as in OpenAI's API. `temperature` 0 takes the likeliest token each time."""

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    """Likeliest tokens to draw from; 0 for all."""
    top_p: float = 1.0
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: bool = False
    eos_token_ids: frozenset[int] = frozenset()


def check_sampling(sampling: Sampling) -> None:
    """Raises DeterministicError naming the parameter that is out of its range."""
    ranges: tuple[tuple[str, float, float, float], ...] = (
        ("temperature", sampling.temperature, 0.0, 2.0),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("top_k", sampling.top_k, 0, 2**31 - 1),
        ("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0),
        ("presence_penalty", sampling.presence_penalty, -2.0, 2.0),
    )
    for name, value, least, most in ranges:
        if not least <= value <= most:
            raise DeterministicError("InvalidParameter", f"{name}: {value:g} is not from {least:g} to {most:g}")
    if sampling.top_p <= 0.0:
        raise DeterministicError("InvalidParameter", "top_p: must be above 0")


def generation_of(engine: EngineDescription) -> Generation:
    """The engine's `generation`. Raises DeterministicError where engine.json lacks it."""
    if engine.generation is None:
        raise DeterministicError("InvalidEngine", "engine.json: generation: missing, text generation needs it")
    return engine.generation


def longest_prompt(engine: EngineDescription) -> int:
    """Tokens of the longest prompt that is taken."""
    return min(engine.limits.max_input_tokens, generation_of(engine).max_context_tokens)


def room_for_answer(engine: EngineDescription, prompt_tokens: int, wanted: int | None) -> int:
    """Tokens that the answer may have. Raises DeterministicError for a prompt or a wish that does not fit."""
    limits, context = engine.limits, generation_of(engine).max_context_tokens
    if prompt_tokens > longest_prompt(engine):
        raise DeterministicError(
            "PromptTooLong",
            f"the prompt has {prompt_tokens} tokens, this engine takes at most {longest_prompt(engine)}"
            " (engine.limits.maxInputTokens)",
        )
    left = context - prompt_tokens
    if wanted is None:
        return min(limits.max_output_tokens, left)
    if wanted < 0:
        raise DeterministicError("InvalidParameter", f"max_tokens: {wanted} is negative")
    if wanted > limits.max_output_tokens:
        raise DeterministicError(
            "AnswerTooLong",
            f"max_tokens: {wanted}, this engine generates at most {limits.max_output_tokens}"
            " (engine.limits.maxOutputTokens)",
        )
    if wanted > left:
        raise DeterministicError(
            "AnswerTooLong",
            f"max_tokens: {wanted} and the prompt's {prompt_tokens} tokens exceed the model's context of {context}",
        )
    return wanted
