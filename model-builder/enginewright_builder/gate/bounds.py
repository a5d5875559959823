"""Upper confidence bounds of a drop, at every confidence that may be asked for later."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CONFIDENCES = tuple(round(0.50 + step / 100, 2) for step in range(50))
"""0.50, 0.51 … 0.99: the order of QualityEvidence.bounds."""

RESAMPLES = 4999
_SEED = 20_240_229
_CHUNK = 500


def mean_bounds(drops: Floats) -> list[float]:
    """Bounds of the mean of paired per-row drops: bias-corrected accelerated bootstrap, one-sided.

    Efron (1987), Better bootstrap confidence intervals, JASA 82; the acceleration is the jackknife's (Efron and
    Tibshirani 1993, eq. 14.15). Drops of cosines are skewed: the plain percentile bound would be too low.
    """
    rows = len(drops)
    means = np.concatenate([counts @ drops for counts in resamples(rows)]) / rows
    jackknife = (drops.sum() - drops) / max(rows - 1, 1)
    return accelerated(means, float(drops.mean()), jackknife)


def statistic_bounds(drop_of: Callable[[NDArray[np.int64]], float], rows: int) -> list[float]:
    """Bounds of any drop that is computed from a choice of rows (`drop_of(indices)`), such as of a rank correlation."""
    generator = np.random.default_rng(_SEED)
    everything = np.arange(rows)
    found = np.array([drop_of(generator.integers(0, rows, rows)) for _ in range(RESAMPLES // 5)])
    jackknife = np.array([drop_of(np.delete(everything, row)) for row in range(min(rows, 200))])
    return accelerated(found, drop_of(everything), jackknife)


def binary_bounds(baseline_right: NDArray[np.bool_], engine_right: NDArray[np.bool_]) -> list[float]:
    """Bounds of a drop of accuracy from paired right/wrong answers; exact, also for no disagreement at all.

    Only rows on which the two disagree tell anything (McNemar 1947). drop = P(only the baseline is right) - P(only the
    engine is right); both are bounded by Clopper and Pearson (1934) with half of the error each, so the sum of both
    bounds holds with the full confidence (Bonferroni).
    """
    from scipy.stats import beta

    rows = len(baseline_right)
    lost = int(np.count_nonzero(baseline_right & ~engine_right))
    won = int(np.count_nonzero(engine_right & ~baseline_right))
    bounds = []
    for confidence in CONFIDENCES:
        half = (1 - confidence) / 2
        most_lost = 1.0 if lost == rows else float(beta.ppf(1 - half, lost + 1, rows - lost))
        least_won = 0.0 if won == 0 else float(beta.ppf(half, won, rows - won + 1))
        bounds.append(most_lost - least_won)
    return bounds


def bound_at(bounds: list[float], confidence: float) -> float:
    """The bound at a confidence, rounded up to a per cent; as `judge` looks it up."""
    index = -int(-(confidence - 0.50) * 100 // 1)
    return bounds[min(max(index, 0), len(bounds) - 1)]


def rounded_up(bounds: list[float]) -> list[float]:
    """Six decimals, never lower than measured: fifty bounds have to fit into a termination message."""
    return [ceil(bound * 1e6) / 1e6 for bound in bounds]


def resamples(rows: int) -> list[Floats]:
    """How often each row is drawn, resample by resample, in chunks."""
    generator = np.random.default_rng(_SEED)
    chances = np.full(rows, 1 / rows)
    sizes = [min(_CHUNK, RESAMPLES - start) for start in range(0, RESAMPLES, _CHUNK)]
    return [generator.multinomial(rows, chances, size=size).astype(np.float64) for size in sizes]


def accelerated(found: Floats, observed: float, jackknife: Floats) -> list[float]:
    """Bounds from a statistic's resamples, its observed value and its values without each single row (BCa)."""
    from scipy.stats import norm

    if np.ptp(found) == 0:
        return [observed] * len(CONFIDENCES)
    below = (np.count_nonzero(found < observed) + np.count_nonzero(found <= observed)) / (2 * len(found))
    bias = norm.ppf(min(max(below, 1 / len(found)), 1 - 1 / len(found)))
    spread = jackknife.mean() - jackknife
    scale = 6 * np.sum(spread**2) ** 1.5
    acceleration = float(np.sum(spread**3) / scale) if scale > 0 else 0.0
    normal = norm.ppf(np.array(CONFIDENCES))
    shifted = bias + (bias + normal) / np.maximum(1 - acceleration * (bias + normal), 1e-3)
    bounds = np.quantile(found, norm.cdf(shifted))
    return [float(value) for value in np.maximum.accumulate(bounds)]
