"""Answers of engine and baseline to QualityEvidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import EvidenceRequest, QualityEvidence, Verdict, judge
from enginewright_api.operation_spec import Metric
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.accuracy import binary_bounds
from enginewright_builder.gate.bounds import at_least_unseen, bound_at, mean_bounds, rounded_up, statistic_bounds
from enginewright_builder.gate.generation import measure_generation
from enginewright_builder.gate.looks import Look
from enginewright_builder.gate.measured import Measured
from enginewright_builder.gate.ranking import measure_ranking
from enginewright_builder.gate.tagging import measure_tagging

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Floats = NDArray[np.float64]
    Levels = Sequence[float]

_MIN_CORRELATED = 8


def compare(
    engine: Vectors,
    baseline: Vectors,
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    request: EvidenceRequest,
    dataset: str,
    look: Look | None = None,
) -> QualityEvidence:
    """Evidence for one request, as one look of a planned sequence; the only one when no look is given.

    Vectors hold one row a text; for SpearmanCorrelation of embeddings the texts first, then their pairs. A reranker
    gives one score a pair. Where rows have labels of words, vectors hold one row a word, the words of all rows in
    order, and samples are texts all the same. Raises DeterministicError InvalidDataset when rows lack what the metric
    needs.
    """
    levels = (look or Look(len(rows))).levels
    measured = _measure(request.metric, engine, baseline, rows, labels=labels, levels=levels)
    return evidence_of(measured, samples=len(rows), request=request, dataset=dataset)


def evidence_of(measured: Measured, *, samples: int, request: EvidenceRequest, dataset: str) -> QualityEvidence:
    """Evidence with its verdict, from a metric that was measured on `samples` rows."""
    bounds = rounded_up(measured.bounds)
    bound = bound_at(bounds, request.confidence)
    unjudged = QualityEvidence(
        metric=request.metric,
        baseline=round(measured.baseline, 6),
        optimized=round(measured.optimized, 6),
        drop=round(measured.drop, 6),
        drop_upper_bound=bound,
        max_drop=request.max_drop,
        confidence=request.confidence,
        samples=samples,
        minimum=None if measured.minimum is None else round(measured.minimum, 6),
        bounds=bounds,
        verdict=Verdict.INCONCLUSIVE,
        dataset=dataset,
    )
    verdict = judge(unjudged, max_drop=request.max_drop, confidence=request.confidence)
    return unjudged.model_copy(update={"verdict": verdict})


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """Row by row; a zero vector has cosine 0 to everything."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)


def _measure(
    metric: Metric,
    engine: Vectors,
    baseline: Vectors,
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    levels: Levels,
) -> Measured:
    if metric is Metric.COSINE_SIMILARITY:
        similar = cosines(engine, baseline)
        drops = 1.0 - similar
        bounds = mean_bounds(drops, levels)
        return Measured(1.0, float(similar.mean()), float(drops.mean()), bounds, float(similar.min()))
    if metric is Metric.NDCG:
        return measure_ranking(engine, baseline, rows, levels)
    if metric is Metric.SPEARMAN_CORRELATION:
        return _spearman(engine, baseline, rows, levels)
    if metric in (Metric.ACCURACY, Metric.F1):
        return _labelled(metric, engine, baseline, rows, labels=labels, levels=levels)
    if metric in (Metric.PERPLEXITY, Metric.TOKEN_AGREEMENT):
        return measure_generation(metric, engine, baseline, levels)
    raise DeterministicError(
        "FeatureNotAvailable", f"quality.metric: {metric.value} cannot be measured on an encoder yet"
    )


def _labelled(
    metric: Metric,
    engine: Vectors,
    baseline: Vectors,
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    levels: Levels,
) -> Measured:
    """Accuracy or F1: of words where rows have a label for each, else of texts."""
    if any(row.word_labels for row in rows):
        return measure_tagging(metric, engine, baseline, rows, labels, levels)
    expected = _expected(rows, labels)
    said, said_before = engine.argmax(axis=1), baseline.argmax(axis=1)
    if metric is Metric.ACCURACY:
        return _accuracy(said == expected, said_before == expected, levels)
    return _f1(said, said_before, expected, levels)


def _accuracy(right: NDArray[np.bool_], right_before: NDArray[np.bool_], levels: Levels) -> Measured:
    optimized, baseline = float(right.mean()), float(right_before.mean())
    return Measured(baseline, optimized, baseline - optimized, binary_bounds(right_before, right, levels))


def _f1(
    said: NDArray[np.int64], said_before: NDArray[np.int64], expected: NDArray[np.int64], levels: Levels
) -> Measured:
    rows = len(expected)

    def drop_of(counts: Floats) -> Floats:
        return macro_f1(said_before, expected, counts) - macro_f1(said, expected, counts)

    optimized, baseline = (float(macro_f1(given, expected, np.ones((1, rows)))[0]) for given in (said, said_before))
    bounds = at_least_unseen(statistic_bounds(drop_of, rows, levels), rows, levels)
    return Measured(baseline, optimized, baseline - optimized, bounds)


def macro_f1(said: NDArray[np.int64], expected: NDArray[np.int64], counts: Floats) -> Floats:
    """Mean over the classes that occur of 2·TP / (2·TP + FP + FN), one a choice of rows.

    Answers and labels [rows]; `counts` [choices, rows] says how often each row is in a choice.
    """
    classes = np.union1d(said, expected)
    named, right = said[:, None] == classes, expected[:, None] == classes
    hit = counts @ (named & right).astype(np.float64)
    total = counts @ (named.astype(np.float64) + right)
    scores = np.divide(2 * hit, total, out=np.zeros_like(hit), where=total > 0)
    return np.asarray(scores.sum(axis=1) / np.count_nonzero(total, axis=1))


def _spearman(engine: Vectors, baseline: Vectors, rows: Sequence[Row], levels: Levels) -> Measured:
    scores = [row.score for row in rows]
    if any(score is None for score in scores) or any(row.text_pair is None for row in rows):
        raise DeterministicError(
            "InvalidDataset", "quality.dataset.columns: SpearmanCorrelation needs textPair and score columns"
        )
    human = np.array([float(score) for score in scores if score is not None])
    if len(human) < _MIN_CORRELATED or np.ptp(human) == 0:
        raise DeterministicError(
            "InvalidDataset", f"quality.dataset: {len(human)} scored pairs with equal scores tell nothing about ranks"
        )
    half = len(rows)
    similar, similar_before = (_of_pairs(answers, half) for answers in (engine, baseline))

    def drop_of(counts: Floats) -> Floats:
        return rank_correlation(similar_before, human, counts) - rank_correlation(similar, human, counts)

    once = np.ones((1, half))
    optimized, before = (float(rank_correlation(one, human, once)[0]) for one in (similar, similar_before))
    return Measured(before, optimized, before - optimized, statistic_bounds(drop_of, half, levels))


def _of_pairs(answers: Vectors, pairs: int) -> Floats:
    """How alike each pair is: a reranker says so itself; of embeddings, the texts' vectors, then their pairs', tell."""
    if len(answers) == pairs:
        return answers[:, 0].astype(np.float64)
    return cosines(answers[:pairs], answers[pairs:])


def rank_correlation(left: Floats, right: Floats, counts: Floats) -> Floats:
    """Spearman's correlation of values [rows], one a choice of rows; equal values share their rank.

    `counts` [choices, rows] says how often each row is in a choice. Values that are all the same correlate with
    nothing: 0.
    """
    middle = (counts.sum(axis=1, keepdims=True) + 1) / 2
    first, second = _ranks(left, counts) - middle, _ranks(right, counts) - middle
    spread = np.sqrt((counts * first**2).sum(axis=1) * (counts * second**2).sum(axis=1))
    return np.divide((counts * first * second).sum(axis=1), spread, out=np.zeros(len(counts)), where=spread > 0)


def _ranks(values: Floats, counts: Floats) -> Floats:
    """Mean rank of each row's value in each choice, without sorting again for each choice."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(place.max() + 1))
    equal = np.add.reduceat(counts[:, order], starts, axis=1)
    below = np.cumsum(equal, axis=1) - equal
    return np.asarray((below + (equal + 1) / 2)[:, place])


def _expected(rows: Sequence[Row], labels: Sequence[str]) -> NDArray[np.int64]:
    """Class numbers of the rows' labels, which may be written as names or as numbers."""
    by_name = {str(index): index for index in range(len(labels))}
    by_name |= {name: index for index, name in enumerate(labels)}
    unknown = next((row for row in rows if row.label not in by_name), None)
    if unknown is not None:
        raise DeterministicError(
            "InvalidDataset",
            f"quality.dataset.columns.label: {unknown.label!r} is none of the model's labels"
            f" ({', '.join(labels)[:200]})",
        )
    return np.array([by_name[row.label] for row in rows if row.label is not None], dtype=np.int64)
