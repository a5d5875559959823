"""From EngineBuilds and the store to the report of a model: all candidates, and the chosen engine in full."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from enginewright_api.engine_build import EngineBuild, MeasuredEvidence
from enginewright_api.errors import DeterministicError
from enginewright_api.manifest import Evidence
from enginewright_api.operation_spec import Quality
from enginewright_api.optimization import Profile
from enginewright_api.optimized_model import OptimizedModel, RungStatus
from enginewright_builder.report.facts import CandidateFacts, ModelFacts, ReportFacts
from enginewright_cli.local.artifacts import read_file
from enginewright_cli.local.ladder import Climbed
from enginewright_cli.rehearsal import Rehearsal
from enginewright_operator.core.conditions import rfc3339
from enginewright_operator.core.draft import recipe_title
from enginewright_operator.core.judgement import judged_quality


def facts_of_model(model: OptimizedModel, builds: Mapping[str, EngineBuild]) -> ModelFacts:
    """What a report of a model on a cluster says. `builds` are its EngineBuilds by name."""
    status = model.status
    built = next((item for item in status.conditions if item.type == "Built"), None)
    chosen = status.target or status.active
    return _facts(
        name=model.metadata.name,
        profile=model.spec.optimization.profile,
        quality=model.spec.quality,
        rungs=status.rungs,
        builds=builds,
        chosen=chosen.engine_build if chosen is not None else "",
        sentence=built.message if built is not None else "not looked at yet",
        served=built is not None and built.status.value == "True",
    )


def facts_of_climb(rehearsal: Rehearsal, climbed: Climbed) -> ModelFacts:
    """What a report of a ladder or search on this machine says."""
    model = OptimizedModel.of({**rehearsal.manifest, "status": {}})
    return _facts(
        name=rehearsal.name,
        profile=model.spec.optimization.profile,
        quality=model.spec.quality,
        rungs=climbed.rungs,
        builds=climbed.builds,
        chosen=climbed.chosen_build,
        sentence=climbed.sentence,
        served=climbed.chosen is not None,
        titles=climbed.titles,
    )


def write_report(facts: ModelFacts, path: Path) -> int:
    """The page; returns its size in bytes. Raises DeterministicError ToolchainMissing on a bare installation."""
    try:
        from enginewright_builder.report.html import render_model
    except ModuleNotFoundError as error:
        raise DeterministicError(
            "ToolchainMissing", f"reports need {error.name}: install enginewright[builder]"
        ) from None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path.write_bytes(render_model(facts).encode())


def _facts(
    *,
    name: str,
    profile: Profile | None,
    quality: Quality,
    rungs: Sequence[RungStatus],
    builds: Mapping[str, EngineBuild],
    chosen: str,
    sentence: str,
    served: bool,
    titles: Mapping[str, str] | None = None,
) -> ModelFacts:
    candidates = [
        _candidate(rung, builds.get(rung.engine_build), (titles or {}).get(rung.engine_build, "")) for rung in rungs
    ]
    engine = builds.get(chosen)
    measured = _measured(engine, rungs) if engine is not None else None
    return ModelFacts(
        name=name,
        profile=profile,
        served=served,
        sentence=sentence,
        candidates=tuple(candidates),
        chosen_build=chosen,
        build=_build(engine, measured, quality) if engine is not None and measured is not None else None,
        created=rfc3339(datetime.now(UTC)),
    )


def _candidate(rung: RungStatus, build: EngineBuild | None, title: str) -> CandidateFacts:
    measured = _measured(build, [rung]) if build is not None else None
    title = recipe_title(build.spec.recipe) if build is not None else title
    if not title:
        # A candidate that was never built says its title first.
        title = rung.message.partition(": ")[0] if ": " in rung.message else rung.format
    message = rung.message.removeprefix("chosen: ").removeprefix(title).lstrip(":, ")
    return CandidateFacts(
        title=title,
        engine_build=rung.engine_build,
        message=message,
        verdict=rung.verdict,
        quality=rung.quality,
        benchmark=measured.benchmark if measured is not None else None,
        seconds=build.status.resources.accelerator_seconds if build is not None else None,
    )


def _measured(build: EngineBuild | None, rungs: Sequence[RungStatus]) -> MeasuredEvidence | None:
    """The evidence that the model asked for: the one of its data set and size, among those of all models."""
    if build is None:
        return None
    rung = next((item for item in rungs if item.engine_build == build.metadata.name), None)
    for item in build.status.evidence:
        if rung is None or rung.quality is None:
            return item
        same = (item.quality.dataset, item.quality.metric, item.quality.samples, item.quality.drop)
        if same == (rung.quality.dataset, rung.quality.metric, rung.quality.samples, rung.quality.drop):
            return item
    return None


def _build(build: EngineBuild, measured: MeasuredEvidence, quality: Quality) -> ReportFacts | None:
    """The chosen engine's own report, with the evidence and the budget of this model."""
    artifact = build.status.artifact
    if artifact is None:
        return None
    store_uri = artifact.uri.split("/artifacts/", 1)[0]
    try:
        facts = ReportFacts.model_validate(json.loads(read_file(store_uri, build.spec.key, "report.json")))
    except ValidationError:
        raise DeterministicError(
            "UnreadableReport", f"{artifact.uri}/report.json was written by another version; build the engine again"
        ) from None
    if facts.evidence.request_digest == measured.request_digest:
        # The status may hold less of it: a termination message has only so much room.
        measured = measured.model_copy(
            update={"benchmark": facts.evidence.benchmark, "quality": facts.evidence.quality}
        )
    judged = judged_quality(measured, max_drop=quality.max_drop, confidence=quality.confidence)
    kept = judged.model_copy(update={"bounds": measured.quality.bounds})
    evidence = Evidence(request_digest=measured.request_digest, quality=kept, benchmark=measured.benchmark)
    return facts.model_copy(update={"evidence": evidence})
