"""Climb a model's ladder, or search recipes, with builder processes; the decisions are the operator's own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from enginewright_api.engine_build import BuildPhase, BuildResources, EngineBuild, EngineBuildStatus, MeasuredEvidence
from enginewright_api.errors import FailureClass, TransientError
from enginewright_api.optimized_model import RungStatus
from enginewright_api.outcome import ArtifactReference, BuildOutcome, Failure
from enginewright_cli.rehearsal import Rehearsal
from enginewright_cli.state import StateDirectory
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.choice import choice, search_of, statuses
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.draft import Draft
from enginewright_operator.core.effects import Create
from enginewright_operator.core.search import Search
from enginewright_operator.core.snapshot import ModelSnapshot
from enginewright_store.retrying import RetryPolicy

Object = dict[str, Any]
Told = Callable[[str], None]

_PR_SET_PDEATHSIG = 1
_ATTEMPTS = RetryPolicy(attempts=3, first_pause_seconds=5.0, longest_pause_seconds=30.0)


@dataclass(frozen=True, slots=True)
class Climbed:
    """Every rung as it came out, why, and the artifact to deploy (None when no rung may be)."""

    rungs: tuple[RungStatus, ...]
    sentence: str
    chosen: ArtifactReference | None
    chosen_build: str
    builds: dict[str, EngineBuild]
    titles: dict[str, str]
    """Of every recipe considered, by EngineBuild name."""
    search: Search | None
    """The walk, where the model has a profile."""


def climb(rehearsal: Rehearsal, *, store_uri: str, state: StateDirectory, quiet: bool, told: Told) -> Climbed:
    """Build one recipe after another until the operator's policy chooses one or has none left.

    All builds share a work folder, so what they have in common is made once. Raises TransientError when something
    outside (store, hub) stays away: that says nothing about a rung, and the next one would be less than was asked for.
    """
    builds: dict[str, Object] = {}
    on = rehearsal.accepted
    with tempfile.TemporaryDirectory(prefix="enginewright-build-") as folder:
        while True:
            draft = _decided(rehearsal, builds)
            created = [effect.manifest for effect in draft.effects if isinstance(effect, Create)]
            _tell_last(draft, builds, told)
            if draft.findings["Accepted"].message != on:
                on = draft.findings["Accepted"].message
                told(on)
            if draft.target is not None or not created:
                return _climbed(draft, builds)
            told(draft.findings["Built"].message)
            for manifest in created:
                build = EngineBuild.of(manifest)
                run = partial(_run, build, Path(folder), store_uri=store_uri, state=state, quiet=quiet)
                builds[build.metadata.name] = {**manifest, "status": attempted(run, told).wire()}


def attempted(run: Callable[[], BuildOutcome], told: Told, policy: RetryPolicy = _ATTEMPTS) -> EngineBuildStatus:
    """Status after a build, which is run again when it failed for an outside reason. Raises the last TransientError."""
    attempts = 0

    def attempt() -> BuildOutcome:
        nonlocal attempts
        attempts += 1
        outcome = run()
        failure = outcome.failure
        if failure is None or failure.failure_class is not FailureClass.TRANSIENT:
            return outcome
        told(f"attempt {attempts} of {policy.attempts}: {failure.reason}: {failure.message}")
        raise TransientError(
            failure.reason, f"{failure.message}; gave up after {attempts} attempts, run it again to go on from there"
        )

    def pause(seconds: float) -> None:
        told(f"trying again in {seconds:.0f} s")
        policy.sleep(seconds)

    return _status_after(replace(policy, sleep=pause).run(attempt), attempts)


def _decided(rehearsal: Rehearsal, builds: dict[str, Object]) -> Draft:
    snapshot = ModelSnapshot(
        manifest=rehearsal.manifest,
        settings=rehearsal.settings,
        classes=rehearsal.classes,
        builds=builds,
        owned_builds=tuple(builds.values()),
    )
    return choice(class_choice(acceptance(Draft(snapshot, datetime.now(UTC)))))


def _tell_last(draft: Draft, builds: dict[str, Object], told: Told) -> None:
    """What became of the build that has just ended."""
    last = next(reversed(builds), None)
    for rung in draft.rung_statuses or ():
        if rung.engine_build == last:
            told(rung.message)


def _climbed(draft: Draft, builds: dict[str, Object]) -> Climbed:
    rungs, found = draft.rung_statuses or (), None
    if draft.pool is not None and draft.spec is not None and draft.spec.optimization.profile is not None:
        found = search_of(draft, draft.spec)
        rungs = tuple(statuses(found, draft.spec.optimization.profile))
    target = draft.target
    return Climbed(
        rungs=rungs,
        # Nothing fits, as the last build found: what is asked for is no longer accepted.
        sentence=(draft.findings.get("Built") or draft.findings["Accepted"]).message,
        chosen=target.artifact if target is not None else None,
        chosen_build=target.rung.build_name if target is not None else "",
        builds={name: EngineBuild.of(manifest) for name, manifest in builds.items()},
        titles={rung.build_name: rung.title for rung in draft.rungs},
        search=found,
    )


def _status_after(outcome: BuildOutcome, attempts: int) -> EngineBuildStatus:
    resources = BuildResources(peak_memory_bytes=outcome.peak_memory_bytes, accelerator_seconds=outcome.seconds)
    told: dict[str, Any] = {
        "stages": outcome.stages,
        "checkpoint": outcome.checkpoint,
        "draft_checkpoint": outcome.draft_checkpoint,
        "resources": resources,
        "attempts": attempts,
    }
    if outcome.artifact is None or outcome.evidence is None:
        failure = (outcome.failure or _silent(outcome.key)).model_copy(update={"attempts": attempts})
        return EngineBuildStatus(phase=BuildPhase.FAILED, failure=failure, **told)
    evidence = MeasuredEvidence(
        request_digest=outcome.evidence.request_digest,
        quality=outcome.evidence.quality,
        benchmark=outcome.evidence.benchmark,
    )
    return EngineBuildStatus(phase=BuildPhase.SUCCEEDED, artifact=outcome.artifact, evidence=[evidence], **told)


def _run(build: EngineBuild, folder: Path, *, store_uri: str, state: StateDirectory, quiet: bool) -> BuildOutcome:
    """One builder process; its progress goes to the terminal, its outcome comes back by the termination message."""
    recipe, message = folder / f"{build.spec.key[:16]}.json", folder / f"{build.spec.key[:16]}.termination.json"
    request = build.spec.request(build.spec.evidence[0])
    recipe.write_text(request.model_dump_json(by_alias=True, exclude_none=True))
    command = [
        str(Path(sys.executable).with_name("enginewright-builder")), "run",
        "--recipe", str(recipe), "--store", store_uri, "--workdir", str(folder / "work"),
        "--signing-key", str(state.signing_key),
    ]  # fmt: skip
    environment = os.environ | {"TERMINATION_MESSAGE_PATH": str(message)}
    builder = subprocess.Popen(
        command,
        env=environment,
        stdout=sys.stderr if quiet else None,
        preexec_fn=partial(_bind, ctypes.CDLL(None)),  # noqa: PLW1509 - this process has no other thread
    )
    try:
        builder.wait()
    except BaseException:  # told to stop; the builder stops what it runs itself, which takes a moment
        builder.terminate()
        builder.wait()
        raise
    try:
        return BuildOutcome.model_validate_json(message.read_bytes())
    except (OSError, ValidationError):
        failure = _silent(build.spec.key).model_copy(update={"exit_code": builder.returncode})
        return BuildOutcome(key=build.spec.key, failure=failure)


def _bind(library: ctypes.CDLL) -> None:
    """In the builder, before it starts: SIGINT is not for it, and it ends when we do.

    Ctrl-C reaches the builder too, and amid its imports it could only print them; we are told as well, and end it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _silent(key: str) -> Failure:
    return Failure(
        failure_class=FailureClass.TRANSIENT,
        reason="BuilderDied",
        message=f"the builder of {key[:16]} ended without a word; its log is above",
        retryable=True,
    )
