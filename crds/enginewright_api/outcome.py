"""How a builder process reports: one JSON line a stage on stdout, a termination message at the end."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from pydantic import Field

from enginewright_api.errors import EnginewrightError, FailureClass
from enginewright_api.geometry import CheckpointSizes
from enginewright_api.identity import canonical_json
from enginewright_api.manifest import Evidence
from enginewright_api.model_base import ApiModel

TERMINATION_MESSAGE_BYTES = 4096
"""Kubernetes cuts longer termination messages."""


class StageState(StrEnum):
    """State of one stage. Cached: its result was in the stage cache."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    CACHED = "Cached"
    FAILED = "Failed"


class StageReport(ApiModel):
    """One line of progress."""

    name: str = Field(description="Stage.")
    state: StageState = Field(description="State.")
    seconds: float = Field(default=0.0, description="Time it took.")
    message: str = Field(default="", description="One sentence.")
    fraction: float | None = Field(default=None, description="Share done while running, where known.")


class StageLine(StageReport):
    """The same on a builder's stdout, with what the stage brought."""

    checkpoint: CheckpointSizes | None = Field(default=None, description="Sizes of the source's checkpoint.")
    draft_checkpoint: CheckpointSizes | None = Field(default=None, description="Sizes of the draft's checkpoint.")

    def report(self) -> StageReport:
        """What stays in a status: shares of a stage change all the time and would make every look a write."""
        return StageReport(name=self.name, state=self.state, seconds=self.seconds, message=self.message)


class ArtifactReference(ApiModel):
    """Where an artifact is."""

    uri: str = Field(description="Folder in the store.")
    digest: str = Field(description="sha256 of manifest.json.")
    size_bytes: int = Field(default=0, description="Bytes of all files.")
    signature: str = Field(default="", description="Key identity that signed it; empty when unsigned.")


class Failure(ApiModel):
    """Why a build failed, as the operator and the user need it."""

    failure_class: FailureClass = Field(alias="class", description="Deterministic, Resource or Transient.")
    stage: str = Field(default="", description="Stage that failed.")
    reason: str = Field(description="CamelCase reason.")
    message: str = Field(description="One sentence: what, where, what to do.")
    exit_code: int | None = Field(default=None, description="Exit code of the builder.")
    retryable: bool = Field(description="Whether another attempt can help.")
    needs_memory_bytes: int | None = Field(
        default=None, description="Resource failures: what was measured to be needed."
    )
    attempts: int = Field(default=1, ge=0, description="Attempts so far.")
    log_tail: str = Field(default="", description="Last lines of the log.")

    @classmethod
    def of(cls, error: EnginewrightError, *, stage: str) -> Failure:
        """The failure an error stands for."""
        return cls(
            failure_class=error.failure_class,
            stage=stage,
            reason=error.reason,
            message=error.message,
            exit_code=error.exit_code,
            retryable=error.failure_class is not FailureClass.DETERMINISTIC,
        )


class BuildOutcome(ApiModel):
    """Termination message of a builder: artifact and evidence, or failure. Exactly one of the two."""

    key: str = Field(description="Build key.")
    artifact: ArtifactReference | None = Field(default=None, description="Set on success.")
    evidence: Evidence | None = Field(default=None, description="Set on success.")
    failure: Failure | None = Field(default=None, description="Set on failure.")
    stages: list[StageReport] = Field(default_factory=list, description="Each stage's final report.")
    checkpoint: CheckpointSizes | None = Field(default=None, description="Sizes of the source's checkpoint.")
    draft_checkpoint: CheckpointSizes | None = Field(default=None, description="Sizes of the draft's checkpoint.")
    peak_memory_bytes: int = Field(default=0, description="Largest resident size of the builder and its children.")
    seconds: float = Field(default=0.0, description="Wall time.")

    def termination_message(self) -> bytes:
        """Canonical JSON of at most 4,096 bytes, always valid; what a person reads is shortened first.

        Then stages and single measurements go, then the bounds, at last every free text is cut harder and harder. Key,
        digests, reason, failure class, verdict and the bound it rests on are never lost.
        """
        data = canonical_json(self.wire())
        for shorten in _SHORTER:
            if len(data) <= TERMINATION_MESSAGE_BYTES:
                break
            data = canonical_json(shorten(self).wire())
        return data


def _texts(outcome: BuildOutcome, *, message: int, log: int, stage: int, other: int = 4096) -> BuildOutcome:
    """Free texts cut to so many characters."""
    stages = [report.model_copy(update={"message": report.message[:stage]}) for report in outcome.stages]
    failure, artifact, evidence = outcome.failure, outcome.artifact, outcome.evidence
    if failure is not None:
        tail = failure.log_tail[-log:] if log else ""
        failure = failure.model_copy(
            update={"message": failure.message[:message], "log_tail": tail, "stage": failure.stage[:other]}
        )
    if artifact is not None:
        artifact = artifact.model_copy(
            update={"uri": artifact.uri[:other], "signature": artifact.signature[: max(other, 64)]}
        )
    if evidence is not None:
        quality = evidence.quality.model_copy(update={"dataset": evidence.quality.dataset[:other]})
        benchmark = evidence.benchmark.model_copy(update={"machine": evidence.benchmark.machine[:other]})
        evidence = evidence.model_copy(update={"quality": quality, "benchmark": benchmark})
    return outcome.model_copy(update={"stages": stages, "failure": failure, "artifact": artifact, "evidence": evidence})


def _evidence(outcome: BuildOutcome, *, measurements: int, bounds: bool) -> BuildOutcome:
    """Without stages, with so many measurements, with the bounds or without."""
    evidence = outcome.evidence
    if evidence is not None:
        benchmark = evidence.benchmark
        benchmark = benchmark.model_copy(update={"measurements": benchmark.measurements[:measurements]})
        quality = evidence.quality if bounds else evidence.quality.model_copy(update={"bounds": []})
        evidence = evidence.model_copy(update={"benchmark": benchmark, "quality": quality})
    return outcome.model_copy(update={"stages": [], "evidence": evidence})


_SHORTER: tuple[Callable[[BuildOutcome], BuildOutcome], ...] = (
    lambda outcome: _texts(outcome, message=1000, log=1200, stage=160),
    lambda outcome: _texts(outcome, message=1000, log=400, stage=0),
    lambda outcome: _texts(_evidence(outcome, measurements=8, bounds=True), message=1000, log=400, stage=0),
    lambda outcome: _texts(_evidence(outcome, measurements=2, bounds=True), message=500, log=0, stage=0, other=512),
    lambda outcome: _texts(_evidence(outcome, measurements=0, bounds=False), message=300, log=0, stage=0, other=256),
    # JSON writes a control character in six bytes: cut far enough for texts made of nothing else.
    lambda outcome: _texts(_evidence(outcome, measurements=0, bounds=False), message=100, log=0, stage=0, other=64),
)
"""Each stronger than the one before; the last always fits."""
