"""What a builder would report: artifacts, evidence and failures to measure."""

from __future__ import annotations

from enginewright_api.errors import FailureClass
from enginewright_api.evidence import BenchmarkEvidence, Measurement, QualityEvidence, Verdict
from enginewright_api.identity import sha256_hex
from enginewright_api.manifest import Evidence
from enginewright_api.operation_spec import Metric
from enginewright_api.outcome import ArtifactReference, BuildOutcome, Failure, StageReport, StageState


def quality(*, drop: float = 0.002, bound: float = 0.004, samples: int = 512) -> QualityEvidence:
    """Paired comparison; the bound grows with the confidence, and `bound` is the one at 0.95."""
    bounds = [bound - 0.0001 * (45 - step) for step in range(50)]
    return QualityEvidence(
        metric=Metric.COSINE_SIMILARITY, baseline=1.0, optimized=1.0 - drop, drop=drop, drop_upper_bound=bound,
        max_drop=0.01, confidence=0.95, samples=samples, bounds=bounds, verdict=Verdict.PASSED, dataset="news-en",
    )  # fmt: skip


def benchmark(speedup: float = 2.5, size_bytes: int = 23) -> BenchmarkEvidence:
    """One shape."""
    row = Measurement(
        batch_size=1, tokens=128, p50_milliseconds=4.0, p95_milliseconds=5.0, throughput_per_second=250.0,
        baseline_p50_milliseconds=4.0 * speedup, baseline_p95_milliseconds=5.0 * speedup,
        baseline_throughput_per_second=250.0 / speedup, speedup=speedup,
    )  # fmt: skip
    return BenchmarkEvidence(
        measurements=[row], speedup=speedup, machine="test", threads=2, baseline_size_bytes=90, size_bytes=size_bytes
    )


def artifact(key: str) -> ArtifactReference:
    """Equal key, equal artifact."""
    return ArtifactReference(uri=f"file:///store/artifacts/{key}", digest=sha256_hex(key.encode()), size_bytes=23)


def evidence(
    request_digest: str, *, drop: float = 0.002, bound: float = 0.004, speedup: float = 2.5, size_bytes: int = 23
) -> Evidence:
    """Everything measured for a request."""
    return Evidence(
        request_digest=request_digest,
        quality=quality(drop=drop, bound=bound),
        benchmark=benchmark(speedup, size_bytes),
    )


def success(key: str, measured: Evidence, *, seconds: float = 2.0) -> BuildOutcome:
    """Termination message of a builder that published."""
    stages = [StageReport(name=name, state=StageState.SUCCEEDED, seconds=1.0) for name in ("fetch", "publish")]
    return BuildOutcome(
        key=key, artifact=artifact(key), evidence=measured, stages=stages, peak_memory_bytes=10**9, seconds=seconds
    )


def failure(
    key: str,
    failure_class: FailureClass,
    reason: str,
    message: str = "it broke",
    *,
    needs_bytes: int | None = None,
    stage: str = "compile",
) -> BuildOutcome:
    """Termination message of a builder that failed."""
    exit_code = {FailureClass.DETERMINISTIC: 20, FailureClass.RESOURCE: 21, FailureClass.TRANSIENT: 22}[failure_class]
    broken = Failure(
        failure_class=failure_class, stage=stage, reason=reason, message=message, exit_code=exit_code,
        retryable=failure_class is not FailureClass.DETERMINISTIC, needs_memory_bytes=needs_bytes, log_tail="last line",
    )  # fmt: skip
    return BuildOutcome(key=key, failure=broken)
