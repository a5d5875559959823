"""nDCG as scikit-learn computes it, and its paired bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Task
from enginewright_builder.datasets.draw import Drawn
from enginewright_builder.datasets.rows import Row, paired, texts_of_rows
from enginewright_builder.gate.bounds import bound_at
from enginewright_builder.gate.ranking import measure_ranking, ndcg, ndcg_bounds, ndcg_by_query

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


def scored(*rows: tuple[str, float]) -> list[Row]:
    return [Row(query, text_pair=f"text {number}", score=score) for number, (query, score) in enumerate(rows)]


def test_a_ranking_is_measured_by_query_and_queries_that_tell_nothing_are_left_out() -> None:
    rows = scored(("a", 1.0), ("a", 0.0), ("b", 0.0), ("b", 0.5), ("alone", 1.0), ("none", 0.0), ("none", 0.0))
    right = np.array([[2], [1], [1], [2], [0], [0], [0]], np.float32)
    wrong = np.array([[1], [2], [1], [2], [0], [0], [0]], np.float32)
    found = measure_ranking(wrong, right, rows, (0.5, 0.95))
    assert found.baseline == pytest.approx(1.0)
    assert found.optimized == pytest.approx((1 / np.log2(3) + 1) / 2)
    assert found.drop == pytest.approx(found.baseline - found.optimized)
    assert found.bounds[1] >= found.bounds[0]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([Row("a", text_pair="b")], "textPair and score"),
        ([Row("a", score=1.0)], "textPair and score"),
        (scored(("a", 1.0), ("a", 0.0), ("b", 0.0)), "1 of 2 queries"),
    ],
)
def test_rows_without_a_ranking_are_refused(rows: list[Row], says: str) -> None:
    answers = np.zeros((len(rows), 1), np.float32)
    with pytest.raises(DeterministicError, match=says):
        measure_ranking(answers, answers, rows, (0.95,))


def test_the_first_rows_hold_whole_queries() -> None:
    rows = tuple(Row(f"query {number % 3}", text_pair=str(number)) for number in range(9))
    drawn = Drawn("set", rows).by_query()
    assert sorted(drawn.rows, key=str) == sorted(rows, key=str)
    assert [len({row.text for row in drawn.first(count).rows}) for count in (3, 6, 9)] == [1, 2, 3]


def test_a_reranker_reads_pairs_and_others_read_texts() -> None:
    rows = [Row("one"), Row("two", text_pair="three")]
    assert texts_of_rows(rows, Task.RERANKING) == [("one", "two"), ("two", "three")]
    assert texts_of_rows(rows, Task.EMBEDDING) == ["one", "two", "three"]
    assert paired([Row("one"), Row("two")])[1].text_pair == "one"
