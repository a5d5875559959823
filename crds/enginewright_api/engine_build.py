"""EngineBuild: one recipe, one engine, its evidence. Named by key, immutable, owned by every model that uses it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from enginewright_api.evidence import BenchmarkEvidence, EvidenceRequest, QualityEvidence
from enginewright_api.geometry import CheckpointSizes
from enginewright_api.meta import API_VERSION, Condition, ObjectMeta
from enginewright_api.model_base import ApiModel
from enginewright_api.outcome import ArtifactReference, Failure, StageReport
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Toolchain
from enginewright_api.rules import rules


class BuildPhase(StrEnum):
    """Life of a build."""

    QUEUED = "Queued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class EngineBuildSpec(ApiModel):
    """What is built, for what, and what is measured."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.key == oldSelf.key", "key: an EngineBuild is immutable; another recipe is another EngineBuild"),
            (
                "self.recipe == oldSelf.recipe",
                "recipe: an EngineBuild is immutable; another recipe is another EngineBuild",
            ),
            ("self.toolchain == oldSelf.toolchain", "toolchain: an EngineBuild is immutable"),
            ("self.accelerator == oldSelf.accelerator", "accelerator: an EngineBuild is immutable"),
            ("self.recipe.backend != 'Auto'", "recipe.backend: must be resolved, Auto is for OptimizedModel"),
        )
    )
    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(description="Build key.")
    recipe: Recipe = Field(description="Resolved recipe.")
    toolchain: Toolchain = Field(description="Builder image by digest.")
    accelerator: AcceleratorFacts = Field(description="Facts of the accelerator class.")
    evidence: Annotated[list[EvidenceRequest], Field(min_length=1, max_length=8)] = Field(
        description="What is measured; models that share the engine may ask for different evidence."
    )

    def request(self, evidence: EvidenceRequest) -> BuildRequest:
        """The file one builder process is given."""
        return BuildRequest(
            key=self.key, recipe=self.recipe, toolchain=self.toolchain, accelerator=self.accelerator, evidence=evidence
        )


class MeasuredEvidence(ApiModel):
    """Evidence that exists, by request."""

    request_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(description="EvidenceRequest.digest.")
    quality: QualityEvidence = Field(description="Quality.")
    benchmark: BenchmarkEvidence = Field(description="Speed.")


class BuildResources(ApiModel):
    """What the build used."""

    peak_memory_bytes: int = Field(default=0, description="Largest resident size.")
    accelerator_seconds: float = Field(default=0.0, description="Accelerator time.")


class EngineBuildStatus(ApiModel):
    """How the build stands."""

    observed_generation: int = Field(default=-1, description="Generation seen; -1 before the first visit.")
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default_factory=list, description="Ready, Reconciling, Stalled."
    )
    phase: BuildPhase = Field(default=BuildPhase.QUEUED, description="Queued, Running, Succeeded or Failed.")
    stages: Annotated[list[StageReport], Field(max_length=32)] = Field(default_factory=list, description="Progress.")
    checkpoint: CheckpointSizes | None = Field(
        default=None,
        description="Sizes of the source's checkpoint, from when it was fetched: what else is asked of this source is "
        "held against its class's memory before a build begins.",
    )
    draft_checkpoint: CheckpointSizes | None = Field(
        default=None, description="Sizes of the checkpoint of the model that drafts; it takes memory as well."
    )
    artifact: ArtifactReference | None = Field(default=None, description="Where the engine is.")
    evidence: Annotated[list[MeasuredEvidence], Field(max_length=8)] = Field(
        default_factory=list, description="What was measured."
    )
    failure: Failure | None = Field(default=None, description="Why it failed.")
    resources: BuildResources = Field(default_factory=BuildResources, description="What it used.")
    attempts: int = Field(default=0, ge=0, description="Jobs started for it.")
    retry_after: str | None = Field(default=None, description="Not before this time, RFC 3339.")


class EngineBuild(ApiModel):
    """One recipe, one engine, its evidence."""

    model_config = ConfigDict(extra="ignore")
    api_version: Literal["enginewright.io/v1alpha1"] = API_VERSION
    kind: Literal["EngineBuild"] = "EngineBuild"
    metadata: ObjectMeta
    spec: EngineBuildSpec
    status: EngineBuildStatus = Field(default_factory=EngineBuildStatus)

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> EngineBuild:
        """Parse an object as the API server gives it."""
        return cls.model_validate(manifest)
