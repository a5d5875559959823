"""What the chain of policies has decided so far about one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import MeasuredEvidence
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.optimization import KvCacheFormat, PruningGranularity, QuantizationMethod
from enginewright_api.optimized_model import ClassChoice, Endpoints, LastFailure, OptimizedModelSpec, RungStatus
from enginewright_api.outcome import ArtifactReference
from enginewright_api.recipe import AcceleratorFacts, Recipe
from enginewright_api.rollout_status import RolloutStatus

from .conditions import Finding
from .effects import Effect
from .engines import NOT_EXPOSED, Selection
from .snapshot import ModelSnapshot

if TYPE_CHECKING:
    from .candidates import Pool


PIECES: dict[PruningGranularity, str] = {
    PruningGranularity.WEIGHTS: "weights",
    PruningGranularity.BLOCKS: "blocks",
    PruningGranularity.TWO_OF_FOUR: "weights, two of four",
    PruningGranularity.NEURONS: "neurons",
    PruningGranularity.HEADS: "heads",
    PruningGranularity.HEADS_AND_NEURONS: "heads and neurons",
    PruningGranularity.LAYERS: "layers",
}
"""What pruning removes, for people."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One recipe of the ladder, resolved."""

    number: int
    recipe: Recipe
    key: str
    build_name: str
    evidence: EvidenceRequest
    accelerator: AcceleratorFacts

    @property
    def format(self) -> str:
        """Number format."""
        return self.recipe.quantization.format.value if self.recipe.quantization is not None else "None"

    @property
    def optimized(self) -> bool:
        """Whether anything is compressed; the plain model is deployed when the user lists it, however fast it is."""
        recipe = self.recipe
        return self.format != "None" or any((recipe.distillation, recipe.pruning, recipe.low_rank))

    @property
    def title(self) -> str:
        """Its recipe, for people."""
        return recipe_title(self.recipe)


def recipe_title(recipe: Recipe) -> str:
    """`INT8 SmoothQuant + 25% of the heads removed on OpenVINO`."""
    quantization = recipe.quantization
    named = quantization.format.value if quantization is not None else "None"
    if quantization is not None and quantization.method is not QuantizationMethod.AUTO:
        named += f" {quantization.method.value}"
    if quantization is not None and quantization.kv_cache_format is not KvCacheFormat.AUTO:
        named += f" + key-value cache {quantization.kv_cache_format.value}"
    return " + ".join([named, *_removed(recipe)]) + f" on {recipe.backend.value}"


def _removed(recipe: Recipe) -> list[str]:
    found = []
    if recipe.distillation is not None:
        layers = recipe.distillation.student.layers
        found.append(f"distilled to {layers} layers" if layers is not None else "distilled")
    if recipe.pruning is not None:
        found.append(f"{recipe.pruning.sparsity:.0%} of the {PIECES[recipe.pruning.granularity]} removed")
    if recipe.low_rank is not None:
        low_rank = recipe.low_rank
        found.append(f"rank {low_rank.rank}" if low_rank.rank else f"rank by {low_rank.energy or 0:.0%} of the energy")
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """The engine the ladder chose."""

    rung: Rung
    artifact: ArtifactReference
    measured: MeasuredEvidence


@dataclass(frozen=True, slots=True)
class Draft:
    """Input and decisions; every policy returns a draft with its own decisions added."""

    snapshot: ModelSnapshot
    now: datetime
    spec: OptimizedModelSpec | None = None
    accelerator_class: AcceleratorClass | None = None
    class_choice: ClassChoice | None = None
    """Why it is that class."""
    rungs: tuple[Rung, ...] = ()
    pool: Pool | None = None
    """What a recipe search may try; None for a ladder."""
    rung_statuses: tuple[RungStatus, ...] | None = None
    """None leaves the ones in the status alone."""
    target: Target | None = None
    selection: Selection = NOT_EXPOSED
    """What the Service is to select."""
    rollout: RolloutStatus | None = None
    """A canary, or an engine that was taken back."""
    settled: bool = False
    """The target is fully deployed and nothing of an earlier engine is left to wait for."""
    endpoints: Endpoints | None = None
    failure: LastFailure | None = None
    """Root cause of what went wrong in this visit; its time is set by the status policy."""
    findings: Mapping[str, Finding] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()

    def found(self, type_: str, finding: Finding) -> Draft:
        """With one more condition."""
        return replace(self, findings={**self.findings, type_: finding})

    def doing(self, *effects: Effect) -> Draft:
        """With more effects."""
        return replace(self, effects=(*self.effects, *effects))

    @property
    def accepted(self) -> bool:
        """Whether the spec can be acted on."""
        finding = self.findings.get("Accepted")
        return finding is not None and finding.holds
