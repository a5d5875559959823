"""Everything a report says: one build (report.json is exactly this), and all candidates of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from enginewright_api.engine_description import EngineDescription
from enginewright_api.evidence import BenchmarkEvidence, QualityEvidence, Verdict
from enginewright_api.goals import Result, pareto_front
from enginewright_api.manifest import Evidence
from enginewright_api.model_base import ApiModel
from enginewright_api.optimization import Profile
from enginewright_api.outcome import StageReport
from enginewright_api.recipe import BuildRequest
from enginewright_builder.provenance import Material

_ELSEWHERE = frozenset({"message", "evidence", "sourceDigest", "manifest", "artifact"})
"""What a report shows in another place."""


class ReportFacts(ApiModel):
    """One build."""

    request: BuildRequest
    description: EngineDescription
    source_digest: str
    parameters: int
    materials: tuple[Material, ...] = ()
    """All that the engine's bytes follow from, the source among it; reports of older builders have none."""
    evidence: Evidence
    stages: tuple[StageReport, ...]
    results: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What each stage told beside its message: parameters left, kept heads, sensitivities ..."""
    created: str


class CandidateFacts(ApiModel):
    """One rung of a ladder, or one candidate of a search."""

    title: str
    engine_build: str
    message: str
    """Why it was or was not chosen."""
    verdict: Verdict | None = None
    quality: QualityEvidence | None = None
    benchmark: BenchmarkEvidence | None = None
    seconds: float | None = None
    """What its build took; None where there was none."""

    def result(self, profile: Profile) -> Result | None:
        """On the goal; None where nothing was measured."""
        if self.quality is None or self.benchmark is None:
            return None
        return Result.of(profile, self.quality, self.benchmark)


class ModelFacts(ApiModel):
    """All candidates of a model and the one that is used."""

    name: str
    profile: Profile | None = None
    """None for a ladder; its front is drawn for latency."""
    served: bool
    """Whether one of them may be deployed."""
    sentence: str
    """As condition Built says it."""
    candidates: tuple[CandidateFacts, ...]
    chosen_build: str = ""
    build: ReportFacts | None = None
    """The chosen one, with the evidence that this model asked for."""
    created: str

    @property
    def goal(self) -> Profile:
        """What candidates are compared by."""
        return self.profile or Profile.LATENCY

    def front(self) -> frozenset[str]:
        """Builds that no other one beats in goal, quality bound and size."""
        found = [(item, result) for item in self.candidates if (result := item.result(self.goal)) is not None]
        places = pareto_front([result for _, result in found])
        return frozenset(found[place][0].engine_build for place in places)


def told_by(results: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, Any]]:
    """Results of stages without what the report shows elsewhere; stages that told nothing are left out."""
    kept = {
        stage: {name: value for name, value in result.items() if name not in _ELSEWHERE}
        for stage, result in results.items()
    }
    return {stage: result for stage, result in kept.items() if result}
