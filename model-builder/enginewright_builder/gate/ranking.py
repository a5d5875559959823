"""nDCG of a reranker and of its baseline, and bounds of the drop.

Normalised discounted cumulative gain: Järvelin and Kekäläinen (2002), Cumulated gain-based evaluation of IR
techniques, ACM TOIS 20(4), with the relevance itself as the gain and log2(rank + 1) as the discount, as trec_eval
and scikit-learn have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_builder.gate.bounds import CONFIDENCES, share_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CUT_OFF = 10


def ndcg(relevance: Floats, scores: Floats, *, at: int = CUT_OFF) -> float:
    """nDCG@`at` of one query: `relevance` [passages] ≥ 0 as people judged, `scores` [passages] as the model did.

    Passages of equal score share the gain of their ranks (McSherry and Najork 2008): their order in a file does not
    count. Raises DeterministicError InvalidDataset when no passage is relevant or a judgement is negative.
    """
    if not (relevance > 0).any() or (relevance < 0).any():
        raise DeterministicError(
            "InvalidDataset", "quality.dataset: each query needs a passage of score above 0 and none below"
        )
    discount = 1 / np.log2(np.arange(2, len(scores) + 2))
    discount[at:] = 0.0
    _, place = np.unique(-scores, return_inverse=True)
    ranks = np.argsort(np.argsort(place, kind="stable"), kind="stable")
    shared = np.bincount(place, weights=discount[ranks]) / np.bincount(place)
    best = np.sort(relevance)[::-1] @ discount
    return float(relevance @ shared[place] / best)


def ndcg_by_query(queries: Sequence[str], relevance: Floats, scores: Floats, *, at: int = CUT_OFF) -> Floats:
    """nDCG of each distinct query, in order of first appearance; queries, relevance and scores [pairs]."""
    order: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        order.setdefault(query, []).append(row)
    return np.array([ndcg(relevance[rows], scores[rows], at=at) for rows in order.values()])


def ndcg_bounds(engine: Floats, baseline: Floats, levels: Sequence[float] = CONFIDENCES) -> list[float]:
    """Upper bounds of the drop of the mean of nDCG by query, paired; queries are the unit, not passages."""
    return share_bounds(baseline - engine, levels)
