"""nDCG as scikit-learn computes it, and its paired bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from enginewright_api.errors import DeterministicError
from enginewright_builder.gate.bounds import bound_at
from enginewright_builder.gate.ranking import ndcg, ndcg_bounds, ndcg_by_query

PASSAGES = st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=2, max_size=25)


@given(PASSAGES.filter(lambda rows: any(relevance for relevance, _ in rows)), st.integers(1, 12))
def test_ndcg_is_scikit_learns_with_and_without_ties(rows: list[tuple[int, int]], at: int) -> None:
    relevance, scores = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    assert ndcg(relevance, scores, at=at) == pytest.approx(ndcg_score([relevance], [scores], k=at))


def test_queries_are_told_apart_wherever_their_rows_are() -> None:
    queries = ["a", "b", "a", "b"]
    relevance, scores = np.array([1.0, 0.0, 0.0, 1.0]), np.array([2.0, 3.0, 1.0, 1.0])
    assert ndcg_by_query(queries, relevance, scores) == pytest.approx([1.0, 1 / np.log2(3)])


def test_queries_without_a_relevant_passage_tell_nothing() -> None:
    for relevance in ([0.0, 0.0], [1.0, -1.0]):
        with pytest.raises(DeterministicError, match="each query needs"):
            ndcg(np.array(relevance), np.array([1.0, 2.0]))


def test_bounds_are_paired_by_query() -> None:
    generator = np.random.default_rng(1)
    baseline = generator.uniform(0.3, 1.0, 400)
    same = ndcg_bounds(baseline, baseline)
    assert bound_at(same, 0.95) == pytest.approx(1 - 0.05 ** (1 / 400)), "what 400 queries may not have shown"
    worse = ndcg_bounds(baseline - 0.02, baseline)
    assert bound_at(worse, 0.95) == pytest.approx(0.02)
