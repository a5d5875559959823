"""Upper confidence bounds of a drop, at every confidence that may be asked for later.

`levels` are one-sided confidences; a look of a planned sequence asks for stricter ones than it stores (see `looks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int32]

CONFIDENCES = tuple(round(0.50 + step / 100, 2) for step in range(50))
"""0.50, 0.51 … 0.99: the order of QualityEvidence.bounds."""

RESAMPLES = 4999
_STATISTIC_RESAMPLES = 1999
"""Fewer, for what costs more; Efron and Tibshirani (1993, section 14.3) ask for 1,000 to 2,000."""
_JACKKNIFE_ROWS = 400
_SEED = 20_240_229
_CHUNK_CELLS = 2**16


def mean_bounds(drops: Floats, levels: Sequence[float] = CONFIDENCES) -> list[float]:
    """Bounds of the mean of paired per-row drops: bias-corrected accelerated bootstrap, one-sided.

    Efron (1987), Better bootstrap confidence intervals, JASA 82; the acceleration is the jackknife's (Efron and
    Tibshirani 1993, eq. 14.15). Drops of cosines are skewed: the plain percentile bound would be too low.
    """
    return ratio_bounds(drops, np.ones(len(drops)), levels)


def ratio_bounds(sums: Floats, weights: Floats, levels: Sequence[float] = CONFIDENCES) -> list[float]:
    """Bounds of Σ sums / Σ weights over rows, each row with its own weight, such as tokens; as `mean_bounds`.

    Ratio estimators: Efron and Tibshirani (1993), chapter 14. Rows are resampled, never the parts of a row: those
    depend on each other.
    """
    rows = len(sums)
    found = np.concatenate(
        [sums[chosen].sum(axis=1) / weights[chosen].sum(axis=1) for chosen in resamples(rows, RESAMPLES)]
    )
    observed = float(sums.sum() / weights.sum())
    if rows == 1:
        return [observed] * len(levels)
    jackknife = (sums.sum() - sums) / (weights.sum() - weights)
    return accelerated(found, observed, jackknife, levels)


def share_bounds(drops: Floats, levels: Sequence[float] = CONFIDENCES) -> list[float]:
    """As `mean_bounds`, for drops between -1 and 1 most of which are exactly zero, such as a share of equal tokens."""
    return at_least_unseen(mean_bounds(drops, levels), len(drops), levels)


def statistic_bounds(
    drop_of: Callable[[Floats], Floats], rows: int, levels: Sequence[float] = CONFIDENCES
) -> list[float]:
    """Bounds of any drop that is computed from a choice of rows, such as of a rank correlation; as `mean_bounds`.

    `drop_of` takes how often each row is chosen [choices, rows] and gives one drop a choice.
    """
    found = np.concatenate([drop_of(_counts(chosen)) for chosen in resamples(rows, _STATISTIC_RESAMPLES)])
    left_out = np.arange(0, rows, max(1, rows // _JACKKNIFE_ROWS))
    without = np.ones((len(left_out), rows))
    without[np.arange(len(left_out)), left_out] = 0
    return accelerated(found, float(drop_of(np.ones((1, rows)))[0]), drop_of(without), levels)


def at_least_unseen(bounds: Sequence[float], rows: int, levels: Sequence[float]) -> list[float]:
    """Not below what may have gone unseen: a fault of a share p of all rows hits none of n with probability (1-p)^n.

    Where most rows do not change at all, resampling the few that do (or none) cannot know this.
    """
    return [
        max(bound, 1 - (1 - level) ** (1 / rows)) if level >= 0.5 else bound
        for bound, level in zip(bounds, levels, strict=True)
    ]


def bound_at(bounds: list[float], confidence: float) -> float:
    """The bound at a confidence, rounded up to a per cent; as `judge` looks it up."""
    index = -int(-(confidence - 0.50) * 100 // 1)
    return bounds[min(max(index, 0), len(bounds) - 1)]


def rounded_up(bounds: list[float]) -> list[float]:
    """Six decimals, never lower than measured (but for float64's last digit): fifty fit into a termination message."""
    return [ceil(bound * 1e6) / 1e6 for bound in bounds]


def resamples(rows: int, count: int) -> Iterator[Indices]:
    """Row numbers [choices, rows] drawn with replacement, `count` choices in chunks that fit into a cache."""
    generator = np.random.default_rng(_SEED)
    chunk = max(1, _CHUNK_CELLS // rows)
    for start in range(0, count, chunk):
        yield generator.integers(0, rows, (min(chunk, count - start), rows), dtype=np.int32)


def _counts(chosen: Indices) -> Floats:
    """Row numbers [choices, rows] to how often each row is among them, same shape."""
    choices, rows = chosen.shape
    cells = chosen + np.arange(choices, dtype=np.int64)[:, None] * rows
    return np.bincount(cells.ravel(), minlength=choices * rows).reshape(choices, rows).astype(np.float64)


def accelerated(found: Floats, observed: float, jackknife: Floats, levels: Sequence[float]) -> list[float]:
    """Bounds from a statistic's resamples, its observed value and its values without each single row (BCa)."""
    from scipy.stats import norm

    if np.ptp(found) == 0:
        return [observed] * len(levels)
    below = (np.count_nonzero(found < observed) + np.count_nonzero(found <= observed)) / (2 * len(found))
    bias = norm.ppf(min(max(below, 1 / len(found)), 1 - 1 / len(found)))
    spread = jackknife.mean() - jackknife
    scale = 6 * np.sum(spread**2) ** 1.5
    acceleration = float(np.sum(spread**3) / scale) if scale > 0 else 0.0
    normal = norm.ppf(np.array(levels))
    shifted = bias + (bias + normal) / np.maximum(1 - acceleration * (bias + normal), 1e-3)
    bounds = np.quantile(found, norm.cdf(shifted))
    return [float(value) for value in np.maximum.accumulate(bounds)]
