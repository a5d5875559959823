"""Perplexity and agreement of greedy tokens, from answers to verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import EvidenceRequest, QualityEvidence, Verdict
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.generation import check_same_likelihood, summary
from enginewright_builder.gate.quality import compare


def answers(rows: int, *, rise: float = 0.0, flipped: float = 0.0, noise: float = 0.0) -> np.ndarray:  # type: ignore[type-arg]
    """Rows of 20 to 40 tokens; the engine's likelihood is worse by `rise`, a share of its choices differs."""
    generator = np.random.default_rng(1)
    tokens = generator.integers(20, 40, rows).astype(np.float64)
    nll = generator.normal(3.0, 0.5, rows)
    choices = generator.integers(0, 1000, (rows, 2)).astype(np.float64)
    other = np.random.default_rng(2)
    nll += np.log1p(rise) + other.normal(0, noise, rows)
    choices[other.random((rows, 2)) < flipped] += 1
    return np.column_stack([nll, tokens, choices])


def judged(engine: np.ndarray, metric: str, max_drop: float) -> QualityEvidence:  # type: ignore[type-arg]
    rows = [Row(str(number)) for number in range(len(engine))]
    request = EvidenceRequest.model_validate(
        {"dataset": {"builtin": {"name": "news-en"}}, "metric": metric, "maxDrop": max_drop, "confidence": 0.95,
         "samples": len(rows)}
    )  # fmt: skip
    return compare(engine, answers(len(engine)), rows, labels=[], request=request, dataset="d")


@pytest.mark.parametrize(
    ("rise", "max_drop", "verdict"),
    [(0.0, 0.01, Verdict.PASSED), (0.03, 0.05, Verdict.PASSED), (0.08, 0.05, Verdict.FAILED)],
)
def test_the_drop_of_perplexity_is_its_relative_rise(rise: float, max_drop: float, verdict: Verdict) -> None:
    found = judged(answers(200, rise=rise, noise=0.02), "Perplexity", max_drop)
    assert found.drop == pytest.approx(rise, abs=0.005)
    assert found.optimized / found.baseline - 1 == pytest.approx(found.drop, abs=1e-4)
    assert found.drop_upper_bound > found.drop
    assert found.verdict is verdict


def test_agreement_is_the_share_of_equal_choices() -> None:
    engine = answers(300, flipped=0.1)
    found = judged(engine, "TokenAgreement", 0.15)
    same = (engine[:, 2:] == answers(300)[:, 2:]).mean()
    assert (found.baseline, found.optimized) == (1.0, pytest.approx(same, abs=1e-6))
    assert found.verdict is Verdict.PASSED
    assert judged(answers(300, flipped=0.3), "TokenAgreement", 0.15).verdict is Verdict.FAILED


def test_a_row_without_a_token_to_predict_is_refused() -> None:
    engine = answers(16)
    engine[3, :2] = 0
    rows = answers(16)
    rows[3, :2] = 0
    request = EvidenceRequest.model_validate(
        {"dataset": {"builtin": {"name": "x"}}, "metric": "Perplexity", "maxDrop": 1, "confidence": 0.9, "samples": 16}
    )
    with pytest.raises(DeterministicError, match="perplexity needs rows of two tokens"):
        compare(engine, rows, [Row("a")] * 16, labels=[], request=request, dataset="d")


def test_an_unquantised_engine_must_have_the_same_likelihoods() -> None:
    assert check_same_likelihood(answers(8, rise=5e-4), answers(8)) == pytest.approx(5e-4, rel=0.01)
    with pytest.raises(DeterministicError) as found:
        check_same_likelihood(answers(8, rise=0.01), answers(8))
    assert found.value.reason == "NumericalMismatch"


def test_both_measures_are_told() -> None:
    told = summary(answers(50, rise=0.02, flipped=0.2), answers(50))
    assert "perplexity" in told
    assert "% of next tokens as the baseline's" in told
