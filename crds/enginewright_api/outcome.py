"""How a builder process reports: one JSON line a stage on stdout, a termination message at the end."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from enginewright_api.errors import EnginewrightError, FailureClass
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
    peak_memory_bytes: int = Field(default=0, description="Largest resident size of the builder and its children.")
    seconds: float = Field(default=0.0, description="Wall time.")

    def termination_message(self) -> bytes:
        """Canonical JSON of at most 4,096 bytes; what a person reads is shortened first, verdicts never."""
        candidates = (
            self,
            self._short(message_characters=160, log_characters=1200),
            self._short(message_characters=0, log_characters=400),
        )
        for candidate in candidates:
            data = canonical_json(candidate.wire())
            if len(data) <= TERMINATION_MESSAGE_BYTES:
                return data
        minimal = candidates[-1].model_copy(update={"stages": []})
        return canonical_json(minimal.wire())[:TERMINATION_MESSAGE_BYTES]

    def _short(self, *, message_characters: int, log_characters: int) -> BuildOutcome:
        stages = [stage.model_copy(update={"message": stage.message[:message_characters]}) for stage in self.stages]
        failure = self.failure
        if failure is not None:
            failure = failure.model_copy(
                update={"message": failure.message[:1000], "log_tail": failure.log_tail[-log_characters:]}
            )
        return self.model_copy(update={"stages": stages, "failure": failure})
