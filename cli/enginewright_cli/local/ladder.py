"""Climb one model's ladder with builder processes, without a control plane. The decisions are the operator's own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from enginewright_api.engine_build import BuildPhase, EngineBuild, EngineBuildStatus, MeasuredEvidence
from enginewright_api.errors import FailureClass
from enginewright_api.optimized_model import RungStatus
from enginewright_api.outcome import ArtifactReference, BuildOutcome, Failure
from enginewright_cli.rehearsal import Rehearsal
from enginewright_cli.state import StateDirectory
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.draft import Draft
from enginewright_operator.core.effects import Create
from enginewright_operator.core.ladder import ladder
from enginewright_operator.core.recipes import recipes
from enginewright_operator.core.snapshot import ModelSnapshot

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Climbed:
    """Every rung as it came out, why, and the artifact to deploy (None when no rung may be)."""

    rungs: tuple[RungStatus, ...]
    sentence: str
    chosen: ArtifactReference | None


def climb(rehearsal: Rehearsal, *, store_uri: str, state: StateDirectory, quiet: bool) -> Climbed:
    """Build rung after rung until the operator's ladder chooses one or has none left."""
    builds: dict[str, Object] = {}
    while True:
        snapshot = ModelSnapshot(
            manifest=rehearsal.manifest, settings=rehearsal.settings, classes=rehearsal.classes, builds=builds
        )
        draft = ladder(recipes(acceptance(Draft(snapshot, datetime.now(UTC)))))
        built = draft.findings["Built"]
        rungs = draft.rung_statuses or ()
        if draft.target is not None:
            return Climbed(rungs, built.message, draft.target.artifact)
        created = [effect.manifest for effect in draft.effects if isinstance(effect, Create)]
        if not created:
            return Climbed(rungs, built.message, None)
        for manifest in created:
            build = EngineBuild.of(manifest)
            status = _status_after(build, _run(build, store_uri=store_uri, state=state, quiet=quiet))
            builds[build.metadata.name] = {**manifest, "status": status.wire()}


def _status_after(build: EngineBuild, outcome: BuildOutcome) -> EngineBuildStatus:
    if outcome.artifact is None or outcome.evidence is None:
        failure = outcome.failure or _silent(outcome.key)
        # There is nobody to try again later: whatever failed, the next rung is up to the ladder.
        failure = failure.model_copy(update={"failure_class": FailureClass.DETERMINISTIC})
        return EngineBuildStatus(phase=BuildPhase.FAILED, failure=failure, attempts=1)
    evidence = MeasuredEvidence(
        request_digest=outcome.evidence.request_digest,
        quality=outcome.evidence.quality,
        benchmark=outcome.evidence.benchmark,
    )
    return EngineBuildStatus(phase=BuildPhase.SUCCEEDED, artifact=outcome.artifact, evidence=[evidence], attempts=1)


def _run(build: EngineBuild, *, store_uri: str, state: StateDirectory, quiet: bool) -> BuildOutcome:
    """One builder process; its progress goes to the terminal, its outcome comes back by the termination message."""
    with tempfile.TemporaryDirectory(prefix="enginewright-build-") as folder:
        recipe, message = Path(folder, "recipe.json"), Path(folder, "termination.json")
        request = build.spec.request(build.spec.evidence[0])
        recipe.write_text(request.model_dump_json(by_alias=True, exclude_none=True))
        command = [
            str(Path(sys.executable).with_name("enginewright-builder")), "run",
            "--recipe", str(recipe), "--store", store_uri, "--workdir", str(Path(folder, "work")),
            "--signing-key", str(state.signing_key),
        ]  # fmt: skip
        environment = os.environ | {"TERMINATION_MESSAGE_PATH": str(message)}
        done = subprocess.run(command, env=environment, stdout=sys.stderr if quiet else None, check=False)
        try:
            return BuildOutcome.model_validate_json(message.read_bytes())
        except (OSError, ValidationError):
            failure = _silent(build.spec.key).model_copy(update={"exit_code": done.returncode})
            return BuildOutcome(key=build.spec.key, failure=failure)


def _silent(key: str) -> Failure:
    return Failure(
        failure_class=FailureClass.TRANSIENT,
        reason="BuilderDied",
        message=f"the builder of {key[:16]} ended without a word; its log is above",
        retryable=True,
    )
