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
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.bounds import CONFIDENCES, share_bounds
from enginewright_builder.gate.measured import Measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Answers = NDArray[np.float32]

CUT_OFF = 10
_MIN_QUERIES = 2


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


def measure_ranking(engine: Answers, baseline: Answers, rows: Sequence[Row], levels: Sequence[float]) -> Measured:
    """nDCG@10 of both; answers [pairs, 1].

    Queries that tell nothing about order (one passage, or none of relevance among those drawn) are left out, as
    trec_eval leaves them out. Raises DeterministicError InvalidDataset when rows are not scored pairs, or fewer than
    two queries are left.
    """
    scored = [row.score for row in rows if row.score is not None and row.text_pair is not None]
    if len(scored) < len(rows):
        raise DeterministicError("InvalidDataset", "quality.dataset.columns: NDCG needs textPair and score columns")
    relevance = np.array(scored, np.float64)
    by_query: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_query.setdefault(row.text, []).append(number)
    told = {query for query, own in by_query.items() if len(own) > 1 and (relevance[own] > 0).any()}
    if len(told) < _MIN_QUERIES:
        raise DeterministicError(
            "InvalidDataset",
            f"quality.dataset: {len(told)} of {len(by_query)} queries have several passages, one of them with a score"
            f" above 0; NDCG needs {_MIN_QUERIES} such queries",
        )
    kept = [number for number, row in enumerate(rows) if row.text in told]
    queries = [rows[number].text for number in kept]
    own, before = (
        ndcg_by_query(queries, relevance[kept], answers[kept, 0].astype(np.float64)) for answers in (engine, baseline)
    )
    drop = float(before.mean() - own.mean())
    return Measured(float(before.mean()), float(own.mean()), drop, ndcg_bounds(own, before, levels))


def ndcg_bounds(engine: Floats, baseline: Floats, levels: Sequence[float] = CONFIDENCES) -> list[float]:
    """Upper bounds of the drop of the mean of nDCG by query, paired; queries are the unit, not passages."""
    return share_bounds(baseline - engine, levels)
