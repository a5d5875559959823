"""Tokens from two servers in turn: A B, B A ...; the streams of one round run together, as clients would.

Every round has prompts of its own: a prompt seen before would be found in the engine's cache, not in the baseline's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import Measurement
from enginewright_api.serving_spec import Limits
from enginewright_builder.servers.generating import Generated
from enginewright_builder.speed import interleaved

MAX_ROUNDS = 12
_MIN_ROUNDS = 3
_STREAMS = (1, 8)
_PROMPT_TOKENS = 64
_OUTPUT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """So many answers at a time, so long each."""

    streams: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one server. `seconds` until the last stream had all its tokens."""

    seconds: float
    first_token_seconds: float


@dataclass(frozen=True, slots=True)
class Runs:
    """Rounds of both."""

    engine: tuple[Round, ...]
    baseline: tuple[Round, ...]


class Generate(Protocol):
    """Answers to all prompts at the same time."""

    def __call__(self, texts: Sequence[str], *, max_tokens: int) -> list[Generated]: ...


def shapes_within(limits: Limits) -> list[Shape]:
    """One stream and several, cut to what the engine takes."""
    prompt, output = min(_PROMPT_TOKENS, limits.max_input_tokens), min(_OUTPUT_TOKENS, limits.max_output_tokens)
    return list(dict.fromkeys(Shape(min(streams, limits.max_batch_size), prompt, output) for streams in _STREAMS))


def measure(
    engine: Generate, baseline: Generate, rounds: Sequence[Sequence[str]], shape: Shape, *, seconds: float
) -> Runs:
    """Both answer the prompts of each round, in alternating order, for about `seconds`; the first round warms up."""
    found: dict[str, list[Round]] = {"engine": [], "baseline": []}
    pairs: tuple[tuple[str, Generate], ...] = (("engine", engine), ("baseline", baseline))
    deadline = time.perf_counter() + seconds
    for turn, texts in enumerate(rounds):
        if turn > _MIN_ROUNDS and time.perf_counter() > deadline:
            break
        for name, generate in pairs if turn % 2 else pairs[::-1]:
            begun = time.perf_counter()
            answers = generate(texts, max_tokens=shape.output_tokens)
            if turn:
                found[name].append(_round(answers, time.perf_counter() - begun, shape))
    return Runs(tuple(found["engine"]), tuple(found["baseline"]))


def measurement(runs: Runs, shape: Shape) -> Measurement:
    """Percentiles of whole answers, ratio of the medians, and the median time to the first token."""
    times = interleaved.Times(tuple(one.seconds for one in runs.engine), tuple(one.seconds for one in runs.baseline))
    found = interleaved.measurement(times, batch=shape.streams, tokens=shape.prompt_tokens)
    return found.model_copy(
        update={
            "output_tokens": shape.output_tokens,
            "first_token_milliseconds": _first(runs.engine),
            "baseline_first_token_milliseconds": _first(runs.baseline),
        }
    )


def _round(answers: Sequence[Generated], seconds: float, shape: Shape) -> Round:
    """An answer that ended early did less: its round counts as if it had gone on at the same speed."""
    generated = sum(answer.tokens for answer in answers)
    if not generated:
        raise DeterministicError("EngineFailed", "a server generated no tokens on real text")
    full = seconds * shape.streams * shape.output_tokens / generated
    return Round(full, median(answer.first_token_seconds for answer in answers))


def _first(rounds: Sequence[Round]) -> float:
    return round(1000 * median(one.first_token_seconds for one in rounds), 3)
