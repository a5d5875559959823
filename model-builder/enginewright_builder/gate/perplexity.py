"""Perplexity of engine and baseline on the same rows, and how much it can have risen.

Perplexity is exp of the mean negative log-likelihood a token, over all tokens of all rows: rows with more tokens weigh
more, as in Jelinek, Mercer, Bahl and Baker (1977) and in every published table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_builder.gate.bounds import CONFIDENCES, ratio_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def perplexity(nll: Floats, token_counts: Floats) -> float:
    """exp(Σ tokens·nll / Σ tokens); `nll` [rows] in nats a token, `token_counts` [rows] tokens that were predicted."""
    return float(np.exp(np.average(nll, weights=token_counts)))


def perplexity_bounds(
    engine_nll: Floats, baseline_nll: Floats, token_counts: Floats, levels: Sequence[float] = CONFIDENCES
) -> list[float]:
    """Upper bounds of the relative rise of perplexity, engine / baseline - 1, at each one-sided confidence.

    `engine_nll` and `baseline_nll` [rows]: mean negative log-likelihood a token of each row, in nats; `token_counts`
    [rows]: tokens that were predicted, the same for both. 0.01 means one per cent more perplexity; better is negative.

    The rise is exp(Σ n·(e - b) / Σ n) - 1: a ratio of sums over rows, bounded in pairs by the bootstrap, whose bounds
    do not change under the exponential.

    Raises DeterministicError InvalidDataset for rows without a token to predict, NotFinite for a NaN or infinity.
    """
    engine, baseline, tokens = (np.asarray(values, np.float64) for values in (engine_nll, baseline_nll, token_counts))
    _check(engine, baseline, tokens)
    return [float(np.expm1(bound)) for bound in ratio_bounds(tokens * (engine - baseline), tokens, levels)]


def _check(engine: Floats, baseline: Floats, tokens: Floats) -> None:
    if not len(tokens) or not (tokens > 0).all():
        raise DeterministicError(
            "InvalidDataset", "quality.dataset: perplexity needs rows of two tokens or more; there is one with fewer"
        )
    for values, who in ((engine, "the engine"), (baseline, "the baseline")):
        broken = np.flatnonzero(~np.isfinite(values))
        if broken.size:
            raise DeterministicError(
                "NotFinite",
                f"{who} gives no finite likelihood for {broken.size} of {len(values)} rows, first row {broken[0]};"
                " its weights or its format are broken",
            )
