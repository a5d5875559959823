"""Two servers asked in turn: AAA BBB, BBB AAA, AAA BBB … one client, one of them busy at a time.

What disturbs the machine disturbs both, so the ratio of the medians holds where the single figures do not. The first
answer of each turn does not count: a server under load is warm, and the other one's turn has thrown its weights and
buffers out of the caches, which costs the faster one the larger share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import exp, log

import numpy as np

from enginewright_api.evidence import Measurement
from enginewright_api.serving_spec import Limits
from enginewright_builder.datasets.rows import Text

SHAPES = ((1, 16), (1, 128), (8, 128), (32, 128))
"""Batch and tokens."""

_MIN_TURNS = 2
_MAX_TURNS = 100
_TIMED_A_TURN = 2

Ask = Callable[[Sequence[Text]], object]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each request."""

    engine: tuple[float, ...]
    baseline: tuple[float, ...]


def shapes_within(limits: Limits) -> list[tuple[int, int]]:
    """The shapes that an engine with these limits takes; larger ones are cut to the limit."""
    cut = [(min(batch, limits.max_batch_size), min(tokens, limits.max_input_tokens)) for batch, tokens in SHAPES]
    return list(dict.fromkeys(cut))


def measure(engine: Ask, baseline: Ask, batches: Sequence[Sequence[Text]], *, seconds: float) -> Times:
    """Ask both with the same texts, in alternating order, for about `seconds`."""
    found: dict[str, list[float]] = {"engine": [], "baseline": []}
    pairs: tuple[tuple[str, Ask], ...] = (("engine", engine), ("baseline", baseline))
    deadline = time.perf_counter() + seconds
    for turn, texts in enumerate(cycle(batches)):
        if turn >= _MAX_TURNS or (turn >= _MIN_TURNS and time.perf_counter() > deadline):
            break
        for name, ask in pairs if turn % 2 else pairs[::-1]:
            ask(texts)
            found[name] += [_seconds(ask, texts) for _ in range(_TIMED_A_TURN)]
    return Times(tuple(found["engine"]), tuple(found["baseline"]))


def _seconds(ask: Ask, texts: Sequence[Text]) -> float:
    begun = time.perf_counter()
    ask(texts)
    return time.perf_counter() - begun


def measurement(times: Times, *, batch: int, tokens: int) -> Measurement:
    """Percentiles, throughput and ratio of the medians of one shape."""
    engine, baseline = _percentiles(times.engine), _percentiles(times.baseline)
    return Measurement(
        batch_size=batch,
        tokens=tokens,
        p50_milliseconds=engine[0],
        p95_milliseconds=engine[1],
        throughput_per_second=round(1000 * batch / engine[0], 2),
        baseline_p50_milliseconds=baseline[0],
        baseline_p95_milliseconds=baseline[1],
        baseline_throughput_per_second=round(1000 * batch / baseline[0], 2),
        speedup=round(baseline[0] / engine[0], 3),
    )


def geometric_mean(ratios: Sequence[float]) -> float:
    """Of positive numbers."""
    return exp(sum(log(ratio) for ratio in ratios) / len(ratios))


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return round(float(p50), 3), round(float(p95), 3)
