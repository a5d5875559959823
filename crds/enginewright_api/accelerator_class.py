"""AcceleratorClass: hardware facts that platform teams own (cluster-scoped)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from enginewright_api.meta import API_VERSION, Condition, ObjectMeta
from enginewright_api.model_base import ApiModel
from enginewright_api.operation_spec import Toleration
from enginewright_api.optimization import Format
from enginewright_api.rules import rules
from enginewright_api.source import Name


class DeviceResource(ApiModel):
    """Extended resource that a pod asks for."""

    name: Name = Field(description="nvidia.com/gpu, cpu ...")
    quantity: int = Field(default=1, ge=1, le=1024, description="For one accelerator.")


class Scheduling(ApiModel):
    """How a pod gets onto such a node."""

    node_selector: Annotated[dict[Name, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = Field(
        default_factory=dict, description="Node labels."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default_factory=list, description="Taints tolerated."
    )
    runtime_class_name: Annotated[str, Field(max_length=253)] = Field(default="", description="RuntimeClass.")


class Cost(ApiModel):
    """Price of one accelerator."""

    per_hour: float = Field(ge=0.0, description="Price of an hour.")
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = Field(default="USD", description="ISO 4217.")


class AcceleratorClassSpec(ApiModel):
    """Facts of one kind of accelerator."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.resource) != has(self.resourceClaimTemplate)",
                "resource: set exactly one of resource and resourceClaimTemplate",
            ),
            (
                "self.vendor != 'nvidia' || self.computeCapability.matches('^[0-9]+[.][0-9]+$')",
                'computeCapability: needed for vendor nvidia, such as "9.0"',
            ),
            (
                "self.vendor != 'cpu' || self.computeCapability == ''",
                "computeCapability: a CPU has none",
            ),
        )
    )
    vendor: Annotated[str, Field(pattern="^(nvidia|amd|intel|cpu)$")] = Field(description="nvidia, amd, intel or cpu.")
    compute_capability: Annotated[str, Field(max_length=16)] = Field(
        default="", description='CUDA compute capability such as "9.0"; empty for CPU.'
    )
    architecture: Annotated[str, Field(max_length=63)] = Field(
        default="",
        description="Instruction set level of a CPU: x86_64, x86_64-avx2, -avx512, -avx512-vnni, -zen4, -amx; aarch64.",
    )
    memory_gib: float = Field(
        alias="memoryGiB",
        gt=0.0,
        le=1_048_576.0,
        description="Memory of one accelerator. For people: shown, nothing follows from it.",
    )
    formats: Annotated[list[Format], Field(min_length=1, max_length=16)] = Field(
        description="Number formats it computes in."
    )
    interconnect: Annotated[str, Field(max_length=63)] = Field(
        default="", description="NVLink, PCIe ... For people: shown, nothing follows from it."
    )
    resource: DeviceResource | None = Field(default=None, description="Extended resource.")
    resource_claim_template: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="ResourceClaimTemplate (resource.k8s.io/v1) instead of resource."
    )
    accelerators_per_node: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Accelerators of one node. A replica of more spans nodes, as a group of a LeaderWorkerSet; "
        "without it every replica is one pod.",
    )
    scheduling: Scheduling = Field(default_factory=Scheduling, description="How pods get there.")
    cost: Cost | None = Field(default=None, description="Price.")


class AcceleratorClassStatus(ApiModel):
    """What the cluster has of it."""

    observed_generation: int = Field(default=-1, description="Generation seen; -1 before the first visit.")
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default_factory=list, description="Ready, HasNodes."
    )
    nodes: int = Field(default=0, description="Matching nodes that are ready.")
    allocatable: int = Field(default=0, description="Accelerators on them.")
    in_use: int = Field(default=0, description="Accelerators taken.")


class AcceleratorClass(ApiModel):
    """Hardware facts that platform teams own."""

    model_config = ConfigDict(extra="ignore")
    api_version: Literal["enginewright.io/v1alpha1"] = API_VERSION
    kind: Literal["AcceleratorClass"] = "AcceleratorClass"
    metadata: ObjectMeta
    spec: AcceleratorClassSpec
    status: AcceleratorClassStatus = Field(default_factory=AcceleratorClassStatus)

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> AcceleratorClass:
        """Parse an object as the API server gives it."""
        return cls.model_validate(manifest)
