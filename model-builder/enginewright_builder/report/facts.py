"""Everything the report says; report.json is exactly this."""

from __future__ import annotations

from enginewright_api.engine_description import EngineDescription
from enginewright_api.manifest import Evidence
from enginewright_api.model_base import ApiModel
from enginewright_api.outcome import StageReport
from enginewright_api.recipe import BuildRequest


class ReportFacts(ApiModel):
    """One build."""

    request: BuildRequest
    description: EngineDescription
    source_digest: str
    parameters: int
    evidence: Evidence
    stages: tuple[StageReport, ...]
    created: str
