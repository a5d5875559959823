"""Answers of engine and baseline to QualityEvidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import EvidenceRequest, QualityEvidence, Verdict, judge
from enginewright_api.operation_spec import Metric
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.bounds import binary_bounds, bound_at, mean_bounds, rounded_up, statistic_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_MIN_CORRELATED = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of both, with bounds of the drop."""

    baseline: float
    optimized: float
    drop: float
    bounds: list[float]
    minimum: float | None = None


def compare(
    engine: Vectors,
    baseline: Vectors,
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    request: EvidenceRequest,
    dataset: str,
) -> QualityEvidence:
    """Evidence for one request.

    Vectors hold one row a text; for SpearmanCorrelation the texts first, then their pairs. Raises DeterministicError
    InvalidDataset when rows lack what the metric needs.
    """
    measured = _measure(request.metric, engine, baseline, rows, labels)
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
    metric: Metric, engine: Vectors, baseline: Vectors, rows: Sequence[Row], labels: Sequence[str]
) -> Measured:
    if metric is Metric.COSINE_SIMILARITY:
        similar = cosines(engine, baseline)
        drops = 1.0 - similar
        return Measured(1.0, float(similar.mean()), float(drops.mean()), mean_bounds(drops), float(similar.min()))
    if metric is Metric.SPEARMAN_CORRELATION:
        return _spearman(engine, baseline, rows)
    if metric in (Metric.ACCURACY, Metric.F1):
        expected = _expected(rows, labels)
        said, said_before = engine.argmax(axis=1), baseline.argmax(axis=1)
        if metric is Metric.ACCURACY:
            return _accuracy(said == expected, said_before == expected)
        return _f1(said, said_before, expected)
    raise DeterministicError(
        "FeatureNotAvailable", f"quality.metric: {metric.value} cannot be measured on an encoder yet"
    )


def _accuracy(right: NDArray[np.bool_], right_before: NDArray[np.bool_]) -> Measured:
    optimized, baseline = float(right.mean()), float(right_before.mean())
    return Measured(baseline, optimized, baseline - optimized, binary_bounds(right_before, right))


def _f1(said: NDArray[np.int64], said_before: NDArray[np.int64], expected: NDArray[np.int64]) -> Measured:
    optimized, baseline = macro_f1(said, expected), macro_f1(said_before, expected)

    def drop_of(rows: NDArray[np.int64]) -> float:
        return macro_f1(said_before[rows], expected[rows]) - macro_f1(said[rows], expected[rows])

    return Measured(baseline, optimized, baseline - optimized, statistic_bounds(drop_of, len(expected)))


def macro_f1(said: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of 2·TP / (2·TP + FP + FN)."""
    classes = np.union1d(said, expected)
    scores = []
    for label in classes:
        hit = int(np.count_nonzero((said == label) & (expected == label)))
        total = int(np.count_nonzero(said == label) + np.count_nonzero(expected == label))
        scores.append(2 * hit / total)
    return float(np.mean(scores))


def _spearman(engine: Vectors, baseline: Vectors, rows: Sequence[Row]) -> Measured:
    from scipy.stats import rankdata

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
    similar = cosines(engine[:half], engine[half:])
    similar_before = cosines(baseline[:half], baseline[half:])

    def correlation(values: NDArray[np.float64], chosen: NDArray[np.int64]) -> float:
        first, second = rankdata(values[chosen]), rankdata(human[chosen])
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            return 0.0
        return float(np.corrcoef(first, second)[0, 1])

    def drop_of(chosen: NDArray[np.int64]) -> float:
        return correlation(similar_before, chosen) - correlation(similar, chosen)

    everything = np.arange(half)
    optimized, before = correlation(similar, everything), correlation(similar_before, everything)
    return Measured(before, optimized, before - optimized, statistic_bounds(drop_of, half))


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
