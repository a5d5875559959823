"""What was measured about an engine, and how it is passed around."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from enginewright_api.identity import digest_of
from enginewright_api.model_base import ApiModel
from enginewright_api.operation_spec import Metric
from enginewright_api.source import Dataset


class Verdict(StrEnum):
    """Outcome of a quality gate. Inconclusive counts as failed."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


class QualityEvidence(ApiModel):
    """Paired comparison of an engine with its baseline on one data set."""

    metric: Metric = Field(description="Metric measured.")
    baseline: float = Field(description="Baseline's value.")
    optimized: float = Field(description="Engine's value.")
    drop: float = Field(description="baseline - optimized; for error-like metrics the relative rise.")
    drop_upper_bound: float = Field(description="Upper confidence bound of the drop.")
    max_drop: float = Field(description="Budget it was judged against.")
    confidence: float = Field(description="One-sided confidence of the bound.")
    samples: int = Field(description="Rows compared.")
    minimum: float | None = Field(default=None, description="Worst single row (cosine to the baseline).")
    bounds: Annotated[list[float], Field(max_length=50)] = Field(
        default_factory=list,
        description="Upper bounds of the drop at confidence 0.50, 0.51 ... 0.99, to judge by another confidence.",
    )
    verdict: Verdict = Field(description="Passed, Failed or Inconclusive, for max_drop and confidence above.")
    dataset: str = Field(description="Data set name and digest.")


class Measurement(ApiModel):
    """One shape, engine beside baseline, interleaved through the real server on one machine."""

    batch_size: int = Field(description="Inputs in one request.")
    tokens: int = Field(description="Tokens of each input.")
    p50_milliseconds: float = Field(description="Engine, median latency.")
    p95_milliseconds: float = Field(description="Engine, 95th percentile.")
    throughput_per_second: float = Field(description="Engine, inputs a second.")
    baseline_p50_milliseconds: float = Field(description="Baseline, median latency.")
    baseline_p95_milliseconds: float = Field(description="Baseline, 95th percentile.")
    baseline_throughput_per_second: float = Field(description="Baseline, inputs a second.")
    speedup: float = Field(description="Ratio of the medians, baseline over engine.")
    output_tokens: int | None = Field(
        default=None, description="Tokens generated for each input; latency is that of whole answers (text generation)."
    )
    first_token_milliseconds: float | None = Field(default=None, description="Engine, median time to the first token.")
    baseline_first_token_milliseconds: float | None = Field(
        default=None, description="Baseline, median time to the first token."
    )


class BenchmarkEvidence(ApiModel):
    """Speed against the baseline."""

    measurements: Annotated[list[Measurement], Field(max_length=32)] = Field(description="One a shape.")
    speedup: float = Field(description="Geometric mean of the measurements' speed-ups.")
    machine: str = Field(description="CPU or GPU model and the flags that matter.")
    threads: int = Field(description="Threads of both.")
    baseline_size_bytes: int = Field(description="Weights of the baseline on disk.")
    size_bytes: int = Field(description="Engine on disk.")
    peak_memory_bytes: int | None = Field(default=None, description="Largest resident size of the serving process.")


class EvidenceRequest(ApiModel):
    """What is to be measured; part of EngineBuild.spec but not of the engine's key."""

    dataset: Dataset = Field(description="Rows, no default left open.")
    metric: Metric = Field(description="Resolved metric.")
    max_drop: float = Field(description="Budget.")
    confidence: float = Field(description="One-sided confidence.")
    samples: int = Field(description="Rows.")

    @property
    def digest(self) -> str:
        """Names the measurement: data set, metric and sample count; the budget is judged, not measured."""
        return digest_of({"dataset": self.dataset.wire(), "metric": self.metric.value, "samples": self.samples})


def judge(evidence: QualityEvidence, *, max_drop: float, confidence: float) -> Verdict:
    """Verdict of stored evidence for another budget or confidence (the bound is looked up, rounded up to a per cent).

    An inconclusive measurement stays inconclusive unless its bound already fits the budget.
    """
    bound = _bound(evidence, confidence)
    if bound <= max_drop:
        return Verdict.PASSED
    return Verdict.INCONCLUSIVE if evidence.drop <= max_drop else Verdict.FAILED


def samples_missing(evidence: QualityEvidence, *, max_drop: float, confidence: float) -> int | None:
    """How many rows more a conclusion is likely to need, from the spread that was seen; 0 when none are.

    The distance between drop and bound falls with the square root of the rows. None: the drop itself is not below the
    budget, so that more rows would not make it pass.
    """
    bound = _bound(evidence, confidence)
    if bound <= max_drop:
        return 0
    room = max_drop - evidence.drop
    if room <= 0:
        return None
    needed = evidence.samples * ((bound - evidence.drop) / room) ** 2
    return max(1, round(needed - evidence.samples))


def rows_wanted(evidence: QualityEvidence) -> str:
    """What an inconclusive measurement lacks, for a sentence."""
    missing = samples_missing(evidence, max_drop=evidence.max_drop, confidence=evidence.confidence)
    return f"about {missing} rows more" if missing else "many more rows"


def _bound(evidence: QualityEvidence, confidence: float) -> float:
    if not evidence.bounds or confidence == evidence.confidence:
        return evidence.drop_upper_bound
    index = min(max(-int(-(confidence - 0.50) * 100 // 1), 0), len(evidence.bounds) - 1)
    return evidence.bounds[index]
