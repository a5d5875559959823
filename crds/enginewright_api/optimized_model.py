"""OptimizedModel: where the weights are, what may be lost, which accelerators, what is promised."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from enginewright_api.evidence import QualityEvidence, Verdict
from enginewright_api.meta import API_VERSION, Condition, ObjectMeta
from enginewright_api.model_base import ApiModel
from enginewright_api.operation_spec import Hardware, Placement, Quality, Rollout, Scaling
from enginewright_api.optimization import Optimization
from enginewright_api.outcome import Failure
from enginewright_api.recipe import Task
from enginewright_api.rollout_status import RolloutStatus
from enginewright_api.rules import rules
from enginewright_api.serving_spec import Batching, Engine, Parallelism, Runtime
from enginewright_api.source import Source

_GENERATES = "self.task == 'TextGeneration'"
_ENCODES = "self.task != 'TextGeneration'"
_LABELS = "self.task in ['Classification', 'TokenClassification']"
_COMPARES = "self.task in ['Embedding', 'Reranking']"

# Objects with defaults are always there when the rules run: the API server fills defaults first, and so do we.
_SPEC_RULES = (
    (
        f"{_GENERATES} || !has(self.scaling.objectives)"
        " || !(has(self.scaling.objectives.timeToFirstTokenMilliseconds)"
        " || has(self.scaling.objectives.interTokenMilliseconds))",
        "scaling.objectives: timeToFirstTokenMilliseconds and interTokenMilliseconds are for task TextGeneration",
    ),
    (
        f"{_GENERATES} || !has(self.runtime.speculativeDecoding)",
        "runtime.speculativeDecoding: only for task TextGeneration",
    ),
    (f"{_GENERATES} || !has(self.runtime.kvCache)", "runtime.kvCache: only for task TextGeneration"),
    (f"{_ENCODES} || !has(self.runtime.fastPath)", "runtime.fastPath: not for task TextGeneration"),
    (
        "self.task == 'Classification' || !has(self.runtime.earlyExit)",
        "runtime.earlyExit: only for task Classification",
    ),
    (
        f"{_GENERATES} || self.batching.mode != 'Continuous'",
        "batching.mode: Continuous is for task TextGeneration",
    ),
    (f"{_GENERATES} || !has(self.batching.streamInterval)", "batching.streamInterval: only for task TextGeneration"),
    (
        f"{_GENERATES} || self.engine.backend != 'TensorRTLLM'",
        "engine.backend: TensorRTLLM is for task TextGeneration",
    ),
    (
        f"{_ENCODES} || self.engine.backend != 'TensorRT'",
        "engine.backend: TensorRT is for encoders; text generation takes TensorRTLLM",
    ),
    (
        f"{_GENERATES} || !has(self.optimization.quantization)"
        " || self.optimization.quantization.kvCacheFormat == 'Auto'",
        "optimization.quantization.kvCacheFormat: only for task TextGeneration",
    ),
    (
        f"{_GENERATES} || !(self.quality.metric in ['Perplexity', 'TokenAgreement'])",
        "quality.metric: Perplexity and TokenAgreement are for task TextGeneration",
    ),
    (
        f"{_COMPARES} || !(self.quality.metric in ['CosineSimilarity', 'SpearmanCorrelation'])",
        "quality.metric: CosineSimilarity and SpearmanCorrelation are for tasks Embedding and Reranking",
    ),
    (
        f"{_LABELS} || !(self.quality.metric in ['Accuracy', 'F1'])",
        "quality.metric: Accuracy and F1 are for tasks Classification and TokenClassification",
    ),
    (
        f"!({_LABELS}) || !has(self.quality.dataset) || has(self.quality.dataset.builtin)"
        " || has(self.quality.dataset.columns.label)",
        "quality.dataset.columns.label: name the column with the expected class",
    ),
    (
        "self.task == 'Reranking' || self.quality.metric != 'NDCG'",
        "quality.metric: NDCG is for task Reranking",
    ),
    (
        "!(self.quality.metric == 'SpearmanCorrelation' || self.task == 'Reranking') || !has(self.quality.dataset)"
        " || has(self.quality.dataset.builtin)"
        " || (has(self.quality.dataset.columns.textPair) && has(self.quality.dataset.columns.score))",
        "quality.dataset.columns: metrics SpearmanCorrelation and NDCG need textPair and score",
    ),
    (
        "self.parallelism.tensor * self.parallelism.pipeline * self.parallelism.context"
        " == self.hardware.acceleratorsPerReplica",
        "parallelism: tensor × pipeline × context must equal hardware.acceleratorsPerReplica",
    ),
    (
        "!has(self.batching.maxBatchSize) || self.batching.maxBatchSize <= self.engine.limits.maxBatchSize",
        "batching.maxBatchSize: must not exceed engine.limits.maxBatchSize",
    ),
    (
        "!has(self.runtime.fastPath) || self.runtime.fastPath.maxInputTokens < self.engine.limits.maxInputTokens",
        "runtime.fastPath.maxInputTokens: must be below engine.limits.maxInputTokens",
    ),
    (
        "self.scaling.mode != 'Manual' || !has(self.scaling.objectives)",
        "scaling.objectives: have no effect with mode Manual; use mode Objectives or leave them out",
    ),
)


class OptimizedModelSpec(ApiModel):
    """What is wanted. Only source, task and hardware have no default."""

    model_config = ConfigDict(json_schema_extra=rules(*_SPEC_RULES))
    source: Source = Field(description="Where the trained weights are.")
    task: Task = Field(description="What the model does.")
    optimization: Optimization = Field(default_factory=Optimization, description="How it is compressed.")
    engine: Engine = Field(default_factory=Engine, description="How it is compiled.")
    parallelism: Parallelism = Field(default_factory=Parallelism, description="How one replica is spread.")
    batching: Batching = Field(default_factory=Batching, description="How requests share an execution.")
    runtime: Runtime = Field(default_factory=Runtime, description="What happens while serving.")
    quality: Quality = Field(default_factory=Quality, description="What may be lost.")
    hardware: Hardware = Field(description="Which accelerators.")
    replicas: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=1,
        description="Wanted replicas; the autoscaler writes them. Leave them out of files kept in Git.",
    )
    scaling: Scaling = Field(default_factory=Scaling, description="Replicas over time.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a new engine takes over.")
    placement: Placement = Field(default_factory=Placement, description="Where pods go.")


class EngineStatus(ApiModel):
    """One engine of the model: the one that serves, or the one that is on its way."""

    engine_build: str = Field(description="EngineBuild name.")
    artifact_digest: str = Field(default="", description="sha256 of the manifest.")
    backend: str = Field(default="", description="Engine backend.")
    format: str = Field(default="", description="Number format.")
    accelerator_class: str = Field(default="", description="AcceleratorClass.")
    replicas: int = Field(default=0, description="Ready replicas.")


class ClassChoice(ApiModel):
    """The accelerator class taken, and what it was taken from: it stays until that changes."""

    taken: str = Field(description="Class.")
    listed: Annotated[list[str], Field(max_length=16)] = Field(description="Classes of the spec then.")
    too_small: Annotated[list[str], Field(max_length=16)] = Field(
        default_factory=list, description="Those into which no build fitted."
    )


class Endpoints(ApiModel):
    """Where it answers."""

    open_ai: str = Field(default="", alias="openAI", description="OpenAI base URL.")
    http: str = Field(default="", description="KServe v2 HTTP.")
    grpc: str = Field(default="", description="KServe v2 gRPC.")


class RungStatus(ApiModel):
    """One rung of the ladder and what became of it."""

    engine_build: str = Field(description="EngineBuild name.")
    format: str = Field(description="Number format.")
    verdict: Verdict | None = Field(default=None, description="Gate; empty while unknown.")
    quality: QualityEvidence | None = Field(default=None, description="Quality measured.")
    speedup: float | None = Field(default=None, description="Against the baseline, through the server.")
    message: str = Field(default="", description="Why it was or was not chosen.")


class Performance(ApiModel):
    """One measured figure."""

    metric: str = Field(description="p50Milliseconds, p95Milliseconds, throughputPerSecond, speedup ...")
    value: float = Field(description="Value.")
    unit: str = Field(description="Unit.")
    batch_size: int = Field(default=1, description="Inputs in a request.")
    tokens: int = Field(default=0, description="Tokens of an input.")


class CostStatus(ApiModel):
    """What a million tokens cost, and what the builds took."""

    predicted_per_million_tokens: float | None = Field(
        default=None, description="From benchmark and class price, for a replica that is busy all the time."
    )
    observed_per_million_tokens: float | None = Field(default=None, description="From traffic and class price.")
    currency: str = Field(default="", description="ISO 4217, as in the accelerator class.")
    build_accelerator_seconds: float = Field(default=0.0, description="Accelerator time of the ladder's builds.")


class ScalingState(StrEnum):
    """How much the autoscaler knows and can do; all but Fresh are reasons of condition Autoscaling."""

    FRESH = "Fresh"
    METRICS_MISSING = "MetricsMissing"
    METRICS_STALE = "MetricsStale"
    CAPACITY_LIMITED = "CapacityLimited"
    OBJECTIVE_INFEASIBLE = "ObjectiveInfeasible"


class ScalingDecision(ApiModel):
    """One decision of the autoscaler."""

    time: str = Field(description="RFC 3339.")
    from_replicas: int = Field(description="Before.")
    to_replicas: int = Field(description="After.")
    reason: str = Field(description="Why, with the figures.")


class ScalingStatus(ApiModel):
    """What the autoscaler thinks. Written by the autoscaler only."""

    desired: int = Field(default=0, description="Wanted replicas.")
    state: ScalingState = Field(
        default=ScalingState.FRESH, description="Fresh, or what stands between the model and its objectives."
    )
    reason: str = Field(default="", description="Why, with the figures.")
    last_decision: str = Field(default="", description="RFC 3339.")
    history: Annotated[list[ScalingDecision], Field(max_length=10)] = Field(
        default_factory=list, description="Last changes."
    )


class LastFailure(ApiModel):
    """Root cause of the last failure; stays until the next success."""

    stage: str = Field(default="", description="Build stage; `plan` where no build was begun; Rollout.")
    reason: str = Field(description="CamelCase reason.")
    message: str = Field(description="One sentence.")
    exit_code: int | None = Field(default=None, description="Exit code.")
    time: str = Field(description="RFC 3339.")
    log_tail: str = Field(default="", description="Last lines of the log.")

    @classmethod
    def of(cls, failure: Failure, *, time: str) -> LastFailure:
        """From a build's failure."""
        return cls(
            stage=failure.stage, reason=failure.reason, message=failure.message,
            exit_code=failure.exit_code, time=time, log_tail=failure.log_tail,
        )  # fmt: skip


class OptimizedModelStatus(ApiModel):
    """How it stands."""

    observed_generation: int = Field(default=-1, description="Generation seen; -1 before the first visit.")
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default_factory=list,
        description="Accepted, Built, RolledOut, Servable, Autoscaling, Ready, Reconciling, Stalled.",
    )
    replicas: int = Field(default=0, description="Existing replicas.")
    selector: str = Field(default="", description="Label selector of the serving pods, for the scale subresource.")
    active: EngineStatus | None = Field(default=None, description="The engine that serves.")
    target: EngineStatus | None = Field(default=None, description="The engine that is wanted.")
    class_choice: ClassChoice | None = Field(default=None, description="Accelerator class taken.")
    endpoints: Endpoints | None = Field(default=None, description="Where it answers.")
    quality: QualityEvidence | None = Field(default=None, description="Quality of the target engine.")
    rungs: Annotated[list[RungStatus], Field(max_length=16)] = Field(default_factory=list, description="The ladder.")
    performance: Annotated[list[Performance], Field(max_length=64)] = Field(
        default_factory=list, description="Measured figures."
    )
    cost: CostStatus | None = Field(default=None, description="Cost.")
    rollout: RolloutStatus | None = Field(default=None, description="A canary, or an engine that was taken back.")
    scaling: ScalingStatus | None = Field(default=None, description="Autoscaler's view.")
    last_failure: LastFailure | None = Field(default=None, description="Root cause of the last failure.")


class OptimizedModel(ApiModel):
    """A trained transformer, proven and served."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra=rules(
            (
                "self.metadata.name.size() <= 40",
                "metadata.name: at most 40 characters, names of children are derived from it",
            ),
            (
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name: lower-case letters, digits and '-', starting with a letter (it names a Service)",
            ),
            (
                "!has(self.spec.runtime.cascade) || self.spec.runtime.cascade.to.name != self.metadata.name",
                "runtime.cascade.to.name: a model cannot be its own heavier model",
            ),
        ),
    )
    api_version: Literal["enginewright.io/v1alpha1"] = API_VERSION
    kind: Literal["OptimizedModel"] = "OptimizedModel"
    metadata: ObjectMeta
    spec: OptimizedModelSpec
    status: OptimizedModelStatus = Field(default_factory=OptimizedModelStatus)

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> OptimizedModel:
        """Parse an object as the API server gives it."""
        return cls.model_validate(manifest)
