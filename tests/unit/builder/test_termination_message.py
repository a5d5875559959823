"""The termination message fits into what Kubernetes keeps, is always JSON, and never loses the verdict."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_api.errors import FailureClass
from enginewright_api.evidence import BenchmarkEvidence, Measurement, QualityEvidence, Verdict
from enginewright_api.geometry import CheckpointSizes
from enginewright_api.manifest import Evidence
from enginewright_api.operation_spec import Metric
from enginewright_api.outcome import (
    TERMINATION_MESSAGE_BYTES,
    ArtifactReference,
    BuildOutcome,
    Failure,
    StageReport,
    StageState,
)

KEY = "a" * 64
TEXT = st.one_of(
    st.text(max_size=50),
    st.text(min_size=1, max_size=20).map(lambda part: part * 400),
    st.sampled_from(["\x01" * 6000, "😀" * 3000, '"' * 5000, "\\" * 5000]),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


def measurement(figure: float) -> Measurement:
    return Measurement.model_validate(
        {name: 1 if name in ("batch_size", "tokens", "output_tokens") else figure for name in Measurement.model_fields}
    )


SIZES = CheckpointSizes(
    layers=1000, width=10**6, heads=1000, key_value_heads=1000, head_width=1000, neurons=10**7, vocabulary=10**7,
    positions=10**7, gated=False, tied=False, experts=1000, decoder=False,
)  # fmt: skip


@st.composite
def evidences(draw: Any) -> Evidence:
    figure = draw(FINITE)
    return Evidence(
        request_digest="b" * 64,
        quality=QualityEvidence(
            metric=Metric.COSINE_SIMILARITY,
            baseline=figure,
            optimized=figure,
            drop=figure,
            drop_upper_bound=figure,
            max_drop=figure,
            confidence=0.95,
            samples=512,
            minimum=figure,
            bounds=[figure] * draw(st.integers(0, 50)),
            verdict=draw(st.sampled_from(Verdict)),
            dataset=draw(TEXT),
        ),
        benchmark=BenchmarkEvidence(
            measurements=[measurement(figure)] * draw(st.integers(0, 32)),
            speedup=figure,
            machine=draw(TEXT),
            threads=2,
            baseline_size_bytes=1,
            size_bytes=1,
        ),
    )


@st.composite
def outcomes(draw: Any) -> BuildOutcome:
    stages = [
        StageReport(name=f"stage{index}", state=StageState.SUCCEEDED, message=draw(TEXT))
        for index in range(draw(st.integers(0, 12)))
    ]
    told = {name: draw(st.sampled_from([None, SIZES])) for name in ("checkpoint", "draft_checkpoint")}
    if draw(st.booleans()):
        artifact = ArtifactReference(uri=draw(TEXT), digest="c" * 64, signature=draw(TEXT))
        return BuildOutcome(key=KEY, artifact=artifact, evidence=draw(evidences()), stages=stages, **told)
    failure = Failure(
        failure_class=draw(st.sampled_from(FailureClass)),
        stage=draw(TEXT),
        reason=draw(st.from_regex("[A-Z][A-Za-z]{0,60}", fullmatch=True)),
        message=draw(TEXT),
        retryable=draw(st.booleans()),
        log_tail=draw(TEXT),
    )
    return BuildOutcome(key=KEY, failure=failure, stages=stages, **told)


@given(outcomes())
def test_always_valid_always_fits_and_never_loses_the_verdict(outcome: BuildOutcome) -> None:
    data = outcome.termination_message()
    assert len(data) <= TERMINATION_MESSAGE_BYTES
    read = BuildOutcome.model_validate_json(data)
    assert read.key == outcome.key
    if outcome.failure is not None:
        assert read.failure is not None
        assert (read.failure.reason, read.failure.failure_class, read.failure.retryable) == (
            outcome.failure.reason,
            outcome.failure.failure_class,
            outcome.failure.retryable,
        )
    if outcome.evidence is not None and outcome.artifact is not None:
        assert read.evidence is not None
        assert read.artifact is not None
        assert read.evidence.quality.verdict is outcome.evidence.quality.verdict
        assert read.evidence.quality.drop_upper_bound == outcome.evidence.quality.drop_upper_bound
        assert read.evidence.request_digest == outcome.evidence.request_digest
        assert read.artifact.digest == outcome.artifact.digest


def test_what_fits_is_sent_whole() -> None:
    failure = Failure(failure_class=FailureClass.TRANSIENT, reason="StoreUnavailable", message="x", retryable=True)
    outcome = BuildOutcome(key=KEY, failure=failure, stages=[StageReport(name="fetch", state=StageState.FAILED)])
    assert BuildOutcome.model_validate_json(outcome.termination_message()) == outcome


@pytest.mark.parametrize(
    ("log_characters", "kept"), [(2000, "log"), (8000, "log"), (200_000, "log")], ids=["little", "more", "much"]
)
def test_the_end_of_the_log_is_what_is_kept(log_characters: int, kept: str) -> None:
    failure = Failure(
        failure_class=FailureClass.DETERMINISTIC,
        reason="InvalidCheckpoint",
        message="model.safetensors: is truncated",
        retryable=False,
        log_tail="." * log_characters + kept,
    )
    read = json.loads(BuildOutcome(key=KEY, failure=failure).termination_message())
    assert read["failure"]["logTail"].endswith(kept)
    assert read["failure"]["message"] == failure.message
