"""Bounds of a drop of accuracy from paired right and wrong answers.

Only rows on which the two disagree tell anything (McNemar 1947). With `lost` rows that only the baseline answers
rightly and `won` rows that only the engine does, the drop is (lost - won) / rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from enginewright_builder.gate.bounds import CONFIDENCES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_HALVINGS = 32
"""Of an interval of length two: far below the sixth decimal, which is what is kept."""


def binary_bounds(
    baseline_right: NDArray[np.bool_], engine_right: NDArray[np.bool_], levels: Sequence[float] = CONFIDENCES
) -> list[float]:
    """Upper bounds of the drop at each one-sided confidence, from one answer a row."""
    lost = int(np.count_nonzero(baseline_right & ~engine_right))
    won = int(np.count_nonzero(engine_right & ~baseline_right))
    return count_bounds(lost, won, len(baseline_right), levels)


def count_bounds(lost: int, won: int, rows: int, levels: Sequence[float] = CONFIDENCES) -> list[float]:
    """As `binary_bounds`, from the counts.

    The score interval of a paired difference: Tango (1998), Statistics in Medicine 17, eq. 4, whose error is close to
    what is promised also for few disagreements (Newcombe 1998; Fagerland, Lydersen, Laake 2014). It is a little too
    short when nothing was won, so it is never let below the exact binomial bound of the net losses (Clopper, Pearson
    1934). Enumerated for 16 … 2,048 rows and every rate of disagreement, the error is at most 1.1 times what is asked
    for (`benchmarks/gate_error_rates.py --exact`).
    """
    from scipy.stats import beta, norm

    wanted = np.asarray(levels, np.float64)
    threshold = -norm.ppf(wanted)
    net = max(lost - won, 0)
    low = np.full(len(wanted), (lost - won) / rows)
    low = np.where(wanted < 0.5, -1.0, low)
    high = np.where(wanted < 0.5, (lost - won) / rows, 1.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = score(lost, won, rows, middle) > threshold
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    exact = np.ones(len(wanted)) if net == rows else beta.ppf(wanted, net + 1, rows - net)
    return [float(bound) for bound in np.where(wanted < 0.5, high, np.maximum(high, exact))]


def score(lost: Floats | int, won: Floats | int, rows: int, drop: Floats | float) -> Floats:
    """Tango's statistic for the hypothesis that the true drop is `drop`: about standard normal when it is true.

    The chance that only the engine is right is estimated under the hypothesis (maximum likelihood).
    """
    a = 2.0 * rows
    b = -lost - won + (2 * rows - lost + won) * drop
    c = -won * drop * (1 - drop)
    only_engine = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = rows * (2 * only_engine + drop * (1 - drop))
    distance = np.asarray(lost - won - rows * drop, np.float64)
    return np.divide(distance, np.sqrt(np.maximum(variance, 1e-300)))
