"""Everything a plan may read, gathered before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import EngineBuild, EngineBuildStatus
from enginewright_api.errors import DeterministicError, first_problem
from enginewright_api.manifest import Evidence
from enginewright_api.optimized_model import OptimizedModelSpec, OptimizedModelStatus
from enginewright_api.outcome import ArtifactReference

from .effects import Object
from .reading import parsed
from .settings import OperatorSettings
from .traffic import Traffic
from .turns import Wait


@dataclass(frozen=True, slots=True)
class Published:
    """An artifact found in the store, with all evidence kept for it."""

    artifact: ArtifactReference
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One OptimizedModel and all that concerns it."""

    manifest: Object
    settings: OperatorSettings
    classes: Mapping[str, AcceleratorClass] = field(default_factory=dict)
    builds: Mapping[str, Object] = field(default_factory=dict)
    """EngineBuilds of the namespace by name: models share them. There may be thousands; look up, do not go through."""
    owned_builds: tuple[Object, ...] = ()
    """Those that the model owns."""
    deployments: tuple[Object, ...] = ()
    groups: tuple[Object, ...] | None = ()
    """LeaderWorkerSets of the model; None where the cluster does not know the kind."""
    pods: tuple[Object, ...] = ()
    config_maps: tuple[Object, ...] = ()
    budgets: tuple[Object, ...] = ()
    """PodDisruptionBudgets."""
    service: Object | None = None
    canary_services: tuple[Object, ...] = ()
    traffic: Traffic | None = None
    """What the gateways told of the canary; None when there is none, or nobody to ask."""

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.manifest["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """Its uid."""
        return str(self.manifest["metadata"].get("uid", ""))

    @property
    def generation(self) -> int:
        """Generation of its spec."""
        return int(self.manifest["metadata"].get("generation", 1))

    def spec(self) -> OptimizedModelSpec | str:
        """Parsed spec, or one sentence that names the field that does not parse."""
        try:
            return OptimizedModelSpec.model_validate(self.manifest.get("spec", {}))
        except ValidationError as error:
            return first_problem(error, "spec")

    def status(self) -> OptimizedModelStatus:
        """Parsed status; a status that does not parse counts as never written."""
        try:
            return OptimizedModelStatus.model_validate(self.manifest.get("status", {}))
        except ValidationError:
            return OptimizedModelStatus()

    @property
    def workloads(self) -> tuple[Object, ...]:
        """What serves its engines, of either kind."""
        return (*self.deployments, *(self.groups or ()))

    def build(self, name: str) -> EngineBuild | None:
        """Parsed EngineBuild. Raises DeterministicError InvalidBuild for one that no schema let through."""
        manifest = self.builds.get(name)
        try:
            return None if manifest is None else parsed(EngineBuild.of, manifest)
        except ValidationError as error:
            message = f"EngineBuild {name}: {first_problem(error, 'spec')}; delete it, and it is made anew"
            raise DeterministicError("InvalidBuild", message) from error


@dataclass(frozen=True, slots=True)
class BuildSnapshot:
    """One EngineBuild and all that concerns it."""

    manifest: Object
    settings: OperatorSettings
    jobs: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    logs: Mapping[str, str] = field(default_factory=dict)
    """Log tail by pod name, for pods that failed."""
    published: Published | None = None
    accelerator: AcceleratorClass | None = None
    wait: Wait | None = None
    """Why an attempt may not begin yet; None when it may."""

    def build(self) -> EngineBuild:
        """Parsed; raises ValidationError for an object that no schema let through."""
        return parsed(EngineBuild.of, self.manifest)

    def status(self) -> EngineBuildStatus:
        """Parsed status."""
        return self.build().status


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """One AcceleratorClass, the nodes that match its selector and the pods on them."""

    manifest: Object
    nodes: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
