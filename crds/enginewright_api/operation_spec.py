"""Quality budget, hardware, scaling, rollout, placement: what is promised and where it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from enginewright_api.model_base import ApiModel
from enginewright_api.rules import rules
from enginewright_api.source import Dataset, Name


class Metric(StrEnum):
    """What quality is measured with."""

    AUTO = "Auto"
    ACCURACY = "Accuracy"
    F1 = "F1"
    COSINE_SIMILARITY = "CosineSimilarity"
    SPEARMAN_CORRELATION = "SpearmanCorrelation"
    NDCG = "NDCG"
    PERPLEXITY = "Perplexity"
    EXACT_MATCH = "ExactMatch"
    TOKEN_AGREEMENT = "TokenAgreement"  # noqa: S105 - a metric, not a secret


class ScalingMode(StrEnum):
    """Who decides the number of replicas."""

    OBJECTIVES = "Objectives"
    EXTERNAL = "External"
    MANUAL = "Manual"


class RolloutStrategy(StrEnum):
    """How a new engine takes over."""

    ROLLING = "Rolling"
    CANARY = "Canary"


class Quality(ApiModel):
    """How much may be lost, and how it is measured."""

    dataset: Dataset | None = Field(
        default=None, description="Rows the gate judges on; the task's builtin set when left out."
    )
    metric: Metric = Field(
        default=Metric.AUTO,
        description="Auto: CosineSimilarity for embeddings, Accuracy for classes of texts, F1 for classes of tokens,"
        " SpearmanCorrelation for reranking,"
        " Perplexity for text generation.",
    )
    max_drop: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="Largest drop against the unoptimised baseline; its upper confidence bound is held against this.",
    )
    confidence: float = Field(default=0.95, ge=0.5, lt=1.0, description="One-sided confidence of the bound.")
    samples: int = Field(default=512, ge=8, le=1_000_000, description="Rows judged on.")


class Hardware(ApiModel):
    """Which accelerators."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.acceleratorClasses.all(a, self.acceleratorClasses.exists_one(b, a == b))",
                "acceleratorClasses: names must differ",
            ),
        )
    )
    accelerator_classes: Annotated[list[Name], Field(min_length=1, max_length=8)] = Field(
        description="AcceleratorClass names in order of preference; `cpu` always exists."
    )
    accelerators_per_replica: int = Field(default=1, ge=1, le=512, description="Accelerators of one replica.")


class Percentiles(ApiModel):
    """Latency bound at the 95th percentile."""

    p95: float = Field(gt=0.0, le=3_600_000.0, description="Milliseconds at the 95th percentile.")


class Objectives(ApiModel):
    """What users of the model are promised."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.timeToFirstTokenMilliseconds) || has(self.interTokenMilliseconds)"
                " || has(self.latencyMilliseconds) || has(self.queueDepthPerReplica)",
                "objectives: set at least one",
            ),
        )
    )
    time_to_first_token_milliseconds: Percentiles | None = Field(
        default=None, description="Request to first token (text generation)."
    )
    inter_token_milliseconds: Percentiles | None = Field(default=None, description="Between tokens (text generation).")
    latency_milliseconds: Percentiles | None = Field(default=None, description="Request to complete answer.")
    queue_depth_per_replica: Annotated[float, Field(gt=0.0, le=100_000.0)] | None = Field(
        default=None, description="Waiting and running requests for each ready replica."
    )


class Scaling(ApiModel):
    """Number of replicas over time."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.minReplicas <= self.maxReplicas",
                "minReplicas: must not exceed maxReplicas",
            ),
            (
                "self.mode != 'Objectives' || has(self.objectives)",
                "objectives: needed with mode Objectives",
            ),
        )
    )
    mode: ScalingMode = Field(
        default=ScalingMode.MANUAL, description="Manual: replicas is yours. Objectives: ours. External: an HPA or KEDA."
    )
    min_replicas: int = Field(default=1, ge=0, le=10_000, description="0 lets the model sleep.")
    max_replicas: int = Field(default=1, ge=1, le=10_000, description="Never more.")
    objectives: Objectives | None = Field(default=None, description="What is promised.")
    attainment: float = Field(default=0.99, gt=0.0, lt=1.0, description="Share of requests that keep the objectives.")


class CanaryStep(ApiModel):
    """A share of the traffic for a while."""

    weight: int = Field(ge=1, le=100, description="Per cent of the traffic.")
    seconds: int = Field(ge=1, le=604_800, description="How long.")


class Canary(ApiModel):
    """Traffic moves to the new engine in steps."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.steps.all(a, self.steps.exists_one(b, a.weight == b.weight))",
                "steps: weights must differ from step to step",
            ),
        )
    )
    steps: Annotated[list[CanaryStep], Field(min_length=1, max_length=10)] = Field(description="In order.")


class Guard(ApiModel):
    """When a canary is taken back."""

    max_latency_ratio: float = Field(default=1.2, gt=0.0, le=100.0, description="p95 against the stable engine.")
    max_error_rate: float = Field(default=0.01, ge=0.0, le=1.0, description="Share of failed requests.")


class Rollout(ApiModel):
    """How a new engine takes over."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.canary) == (self.strategy == 'Canary')",
                "canary: needed with strategy Canary, and only there",
            ),
            ("!has(self.guard) || has(self.canary)", "guard: goes with canary"),
        )
    )
    strategy: RolloutStrategy = Field(default=RolloutStrategy.ROLLING, description="Rolling or Canary.")
    max_surge: int = Field(
        default=1, ge=0, le=1000, description="Replicas above the wanted number while rolling; 0 replaces in place."
    )
    canary: Canary | None = Field(default=None, description="Steps of traffic; with strategy Canary.")
    guard: Guard | None = Field(default=None, description="When a canary is taken back.")
    progress_deadline_seconds: int = Field(
        default=900, ge=10, le=86_400, description="A rollout without progress for this long has failed."
    )
    paused: bool = Field(default=False, description="Stop where it is.")


class Toleration(ApiModel):
    """As in core/v1."""

    key: Annotated[str, Field(max_length=316)] | None = Field(default=None, description="Taint key.")
    operator: Annotated[str, Field(pattern="^(Exists|Equal)$")] = Field(default="Equal", description="Exists or Equal.")
    value: Annotated[str, Field(max_length=63)] | None = Field(default=None, description="Taint value.")
    effect: Annotated[str, Field(pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")] | None = Field(
        default=None, description="Taint effect."
    )
    toleration_seconds: int | None = Field(default=None, ge=0, description="How long NoExecute is tolerated.")


Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", max_length=32)]


class Resources(ApiModel):
    """Requests and limits, as in core/v1."""

    requests: Annotated[dict[Name, Quantity], Field(max_length=16)] = Field(
        default_factory=dict, description="Reserved."
    )
    limits: Annotated[dict[Name, Quantity], Field(max_length=16)] = Field(
        default_factory=dict, description="Never more."
    )


class Placement(ApiModel):
    """Where serving pods go, on top of what the accelerator class says."""

    node_selector: Annotated[dict[Name, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = Field(
        default_factory=dict, description="Node labels."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default_factory=list, description="Taints tolerated."
    )
    priority_class_name: Annotated[str, Field(max_length=253)] = Field(default="", description="PriorityClass.")
    resources: Resources = Field(default_factory=Resources, description="CPU and memory of the serving container.")
