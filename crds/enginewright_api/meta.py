"""Kubernetes object envelope: metadata, conditions, references."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from enginewright_api.model_base import ApiModel

GROUP = "enginewright.io"
VERSION = "v1alpha1"
API_VERSION: Literal["enginewright.io/v1alpha1"] = "enginewright.io/v1alpha1"


class ObjectMeta(ApiModel):
    """The parts of metav1.ObjectMeta that we read; whatever else the API server keeps there is let through."""

    model_config = ConfigDict(extra="allow")
    name: Annotated[str, Field(min_length=1, max_length=253)]
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class ConditionStatus(StrEnum):
    """Unknown = in transition; False = not so and will not become so by waiting alone."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316)] = Field(description="Condition type.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")] = Field(
        description="CamelCase reason."
    )
    message: Annotated[str, Field(max_length=32768)] = Field(default="", description="One sentence for a person.")
    last_transition_time: str = Field(
        description="When status last changed, RFC 3339.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(default=0, ge=0, description="Generation of the spec this was set for.")
