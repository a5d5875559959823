"""The contest: everybody answers the same batches in turn; quality is cosine to eager PyTorch in float32."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from tokenizers import Tokenizer

from benchmarks.peers.contender import EAGER, ContenderFailedError, Running
from enginewright_builder.datasets.news import evaluation_rows
from enginewright_builder.machine import Disturbance
from enginewright_builder.speed.texts import texts_of

TOKENS = 128
SHAPES = {"b1s128": 1, "b32s128": 32}
_BATCHES = 4
_MAX_ROUNDS = 60
_TIMED_A_TURN = 2
_WARM_UP = 2

Batch = tuple[list[list[int]], list[list[int]]]
Said = Callable[[str], None]


@dataclass(slots=True)
class Score:
    """What one contender reached with one model."""

    contender: Running
    cosine_mean: float = 1.0
    cosine_min: float = 1.0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By shape."""

    def milliseconds(self, shape: str) -> float:
        """Median."""
        return 1000 * median(self.seconds[shape])


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rows: int
    """Texts that quality is judged on."""
    seconds: float
    """For one shape, all contenders together, warm-up apart."""
    rounds: int
    """At least."""


def judge(contenders: Sequence[Running], tokenizer: Path, effort: Effort) -> list[Score]:
    """Cosines on texts as they come, one at a time. Raises ContenderFailedError when eager PyTorch fails."""
    scores = [Score(one) for one in contenders]
    batches = _sentences(tokenizer, effort.rows)
    found = {id(score): np.array([_vector(score.contender, batch) for batch in batches]) for score in scores}
    reference = next(found[id(score)] for score in scores if score.contender.contender == EAGER)
    for score in scores:
        cosines = (found[id(score)] * reference).sum(1)
        score.cosine_mean, score.cosine_min = float(cosines.mean()), float(cosines.min())
    return scores


def race(scores: Sequence[Score], tokenizer: Path, effort: Effort, say: Said) -> dict[str, float]:
    """Fills in the seconds of every shape, in turn, another one first each round. Share that others took, by shape.

    The first answer of a turn does not count: the others have thrown weights and buffers out of the caches.
    """
    material = [row.text for row in evaluation_rows()]
    disturbed = {}
    for shape, batch in SHAPES.items():
        texts = texts_of(TOKENS, _BATCHES * batch, material, tokenizer)
        batches = [_encoded(tokenizer, texts[start : start + batch]) for start in range(0, len(texts), batch)]
        say(f"{shape}: warming up")
        for score in scores:
            score.seconds[shape] = []
            for warm_up in batches[: _WARM_UP if batch == 1 else 1]:
                score.contender.ask(*warm_up)
        disturbance = Disturbance([os.getpid()])
        deadline = time.monotonic() + effort.seconds
        for turn in range(_MAX_ROUNDS):
            if turn >= effort.rounds and time.monotonic() > deadline:
                break
            first = turn % len(scores)
            for score in [*scores[first:], *scores[:first]]:
                score.contender.ask(*batches[turn % _BATCHES])
                for _ in range(_TIMED_A_TURN):
                    score.seconds[shape].append(score.contender.ask(*batches[turn % _BATCHES]).seconds)
        disturbed[shape] = round(disturbance.share(), 3)
    return disturbed


def _vector(contender: Running, batch: Batch) -> list[float]:
    ids, mask = batch
    if contender.contender.padded:
        missing = TOKENS - len(ids[0])
        ids, mask = [ids[0] + [0] * missing], [mask[0] + [0] * missing]
    (vector,) = contender.ask(ids, mask, vectors=True).vectors
    return vector


def _sentences(tokenizer: Path, rows: int) -> list[Batch]:
    texts = [row.text for row in evaluation_rows()]
    return [_encoded(tokenizer, [text]) for text in texts[:: max(1, len(texts) // rows)][:rows]]


def _encoded(tokenizer: Path, texts: Sequence[str]) -> Batch:
    found = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    found.enable_truncation(TOKENS)
    found.enable_padding()
    encodings = found.encode_batch(list(texts))
    return [one.ids for one in encodings], [one.attention_mask for one in encodings]


__all__ = ["ContenderFailedError", "Effort", "Score", "judge", "race"]
