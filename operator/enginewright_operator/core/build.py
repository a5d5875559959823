"""The life of an EngineBuild: a Job for each attempt until every piece of evidence asked for exists, or cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from enginewright_api.engine_build import (
    BuildPhase,
    BuildResources,
    EngineBuild,
    EngineBuildStatus,
    MeasuredEvidence,
)
from enginewright_api.errors import FailureClass, first_problem
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.names import LABEL_EVIDENCE
from enginewright_api.outcome import ArtifactReference, Failure, StageReport

from .attempts import GiveUp, Later, Start, Working, course
from .conditions import Finding, in_transition, is_false, is_true, merged, rfc3339
from .effects import Apply, Create, Effect, Emit, Object, PatchStatus, Plan, Reference, RequeueAfter
from .job_outcomes import JobView, view_job
from .progress import ToldSizes, sizes_in, stages_in
from .reading import mapping
from .render.jobs import build_job, recipe_config_map
from .snapshot import BuildSnapshot
from .status_diff import status_patch
from .turns import Wait

WATCH_SECONDS = 5.0
"""How often a running builder's progress is read."""
WAIT_MOST_SECONDS = 300.0
"""How often a build at the end of a long line looks again."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about the build from its status, its Jobs and the store together."""

    views: tuple[tuple[JobView, str, str | None], ...]
    """Attempts, oldest first: view, evidence label, time it ended."""
    artifact: ArtifactReference | None
    evidence: dict[str, MeasuredEvidence]
    sizes: ToldSizes


@dataclass(frozen=True, slots=True)
class Visit:
    """What a visit came to."""

    phase: BuildPhase
    ready: Finding
    effects: tuple[Effect, ...] = ()
    failure: Failure | None = None
    stages: tuple[StageReport, ...] | None = None
    attempts: int = 0
    retry_after: str | None = None
    requeue_seconds: float | None = None


def plan_build(snapshot: BuildSnapshot, now: datetime) -> Plan:
    """Effects for one EngineBuild."""
    if snapshot.manifest["metadata"].get("deletionTimestamp"):
        return Plan()
    try:
        build = snapshot.build()
    except ValidationError as error:
        return _malformed(snapshot, first_problem(error, "spec"), now)
    known = _known(snapshot, build)
    attempts = max([build.status.attempts, *(view.attempt for view, _, _ in known.views)])
    visit = _visit(snapshot, build, known, attempts, now)
    status = _status(snapshot, build, known, visit, now)
    patch = status_patch(snapshot.manifest.get("status", {}), status.wire())
    effects: list[Effect] = [*visit.effects, *_events(snapshot, build.status, visit)]
    if patch:
        effects.append(PatchStatus(Reference.to(snapshot.manifest), patch, build.metadata.uid))
    if visit.requeue_seconds is not None:
        effects.append(RequeueAfter(visit.requeue_seconds))
    return Plan(tuple(effects), {"phase": visit.phase.value})


def _known(snapshot: BuildSnapshot, build: EngineBuild) -> Known:
    views = []
    for job in snapshot.jobs:
        view = view_job(job, snapshot.pods, snapshot.logs)
        if view.outcome is not None and view.outcome.key != build.spec.key:
            view = replace(view, outcome=None, failure=_foreign(view.outcome.key))
        views.append((view, job["metadata"].get("labels", {}).get(LABEL_EVIDENCE, ""), _ended(job)))
    views.sort(key=lambda item: item[0].attempt)
    artifact = build.status.artifact
    evidence = {item.request_digest: item for item in build.status.evidence}
    found = list(snapshot.published.evidence) if snapshot.published is not None else []
    if snapshot.published is not None:
        artifact = artifact or snapshot.published.artifact
    for view, _, _ in views:
        if view.outcome is not None and view.outcome.artifact is not None and view.outcome.evidence is not None:
            artifact = artifact or view.outcome.artifact
            found.append(view.outcome.evidence)
    wanted = {request.digest for request in build.spec.evidence}
    for item in found:
        if item.request_digest in wanted:
            measured = MeasuredEvidence(
                request_digest=item.request_digest, quality=item.quality, benchmark=item.benchmark
            )
            evidence.setdefault(item.request_digest, measured)
    return Known(tuple(views), artifact, evidence, _sizes(snapshot, build.status, views))


def _sizes(
    snapshot: BuildSnapshot, status: EngineBuildStatus, views: Sequence[tuple[JobView, str, str | None]]
) -> ToldSizes:
    """As known before, as a builder reported them at its end, or as it tells them while it runs."""
    outcomes = [view.outcome for view, _, _ in views if view.outcome is not None]
    found = ToldSizes(status.checkpoint, status.draft_checkpoint)
    for outcome in outcomes:
        found = found.completed(ToldSizes(outcome.checkpoint, outcome.draft_checkpoint))
    for log in snapshot.logs.values():
        found = found.completed(sizes_in(log))
    return found


def _visit(snapshot: BuildSnapshot, build: EngineBuild, known: Known, attempts: int, now: datetime) -> Visit:
    missing = [request for request in build.spec.evidence if request.digest not in known.evidence]
    at_work = any(not view.finished for view, _, _ in known.views) and build.status.phase is not BuildPhase.SUCCEEDED
    if not missing and known.artifact is not None and not at_work:
        return _succeeded(known, attempts)
    status, generation = build.status, build.metadata.generation
    if status.phase is BuildPhase.FAILED and status.observed_generation == generation and _is_final(status, known):
        return _failed(status.failure or _foreign("?"), (), attempts)
    given_up: list[tuple[GiveUp, JobView]] = []
    for request in missing or build.spec.evidence[:1]:
        tries = [(view, ended) for view, label, ended in known.views if label == request.digest[:32]]
        step = course(tries, snapshot.settings.builds, now)
        if isinstance(step, GiveUp):
            given_up.append((step, tries[-1][0]))
            continue
        if isinstance(step, Start) and at_work:
            # Its Job for other evidence: one builder of a build at a time, they would do the same work twice.
            step = Working(next(view for view, _, _ in known.views if not view.finished))
        if isinstance(step, Start):
            return _start(snapshot, build, request, step, attempts)
        return _working(snapshot, step, attempts) if isinstance(step, Working) else _later(step, attempts, now)
    step, view = given_up[0]
    return _failed(step.because, tuple(view.outcome.stages if view.outcome else ()), attempts)


def _is_final(status: EngineBuildStatus, known: Known) -> bool:
    """Whether a verdict stands by itself: its Jobs may have been cleaned away, or the pods that said what was wrong."""
    hopeless = status.failure is not None and status.failure.failure_class is FailureClass.DETERMINISTIC
    judged = all(view.finished and view.attempt <= status.attempts for view, _, _ in known.views)
    return not known.views or (hopeless and judged)


def _working(snapshot: BuildSnapshot, step: Working, attempts: int) -> Visit:
    view = step.view
    log = next((text for pod, text in snapshot.logs.items() if pod.startswith(view.name)), "")
    return Visit(
        phase=BuildPhase.RUNNING if view.running else BuildPhase.QUEUED,
        ready=in_transition(
            "Building" if view.running else "Queued", view.waiting or f"attempt {view.attempt} started"
        ),
        stages=tuple(stages_in(log)) or None,
        failure=snapshot.status().failure,
        attempts=attempts,
        requeue_seconds=WATCH_SECONDS,
    )


def _later(step: Later, attempts: int, now: datetime) -> Visit:
    again = rfc3339(now + timedelta(seconds=step.seconds))
    message = f"trying again at {again} after {step.because.reason}: {step.because.message}"
    return Visit(
        phase=BuildPhase.QUEUED,
        ready=in_transition("WaitingToRetry", message),
        failure=step.because,
        attempts=attempts,
        retry_after=again,
        requeue_seconds=max(0.5, step.seconds),
    )


def _in_line(wait: Wait, step: Start, attempts: int) -> Visit:
    return Visit(
        phase=BuildPhase.QUEUED,
        ready=in_transition("Queued", wait.message),
        failure=step.because,
        attempts=attempts,
        # Builds take minutes: who is far behind need not look often.
        requeue_seconds=min(WATCH_SECONDS * wait.before, WAIT_MOST_SECONDS),
    )


def _start(snapshot: BuildSnapshot, build: EngineBuild, request: EvidenceRequest, step: Start, made: int) -> Visit:
    if snapshot.wait is not None:
        return _in_line(snapshot.wait, step, made)
    attempt = made + 1
    job = build_job(snapshot, build, request, attempt=attempt, memory_gib=step.memory_gib)
    after = f" after {step.because.reason}" if step.because is not None else ""
    return Visit(
        phase=BuildPhase.QUEUED,
        ready=in_transition("Queued", f"attempt {attempt} asked for{after}"),
        effects=(Apply(recipe_config_map(build, request, job)), Create(job)),
        failure=step.because,
        attempts=attempt,
        requeue_seconds=WATCH_SECONDS,
    )


def _succeeded(known: Known, attempts: int) -> Visit:
    done = [view.outcome for view, _, _ in known.views if view.outcome is not None and view.outcome.artifact]
    built = ("Built", "engine built and measured")
    reason, message = built if attempts else ("Reused", "engine found in the store, nothing was built")
    stages = tuple(done[-1].stages) if done else None
    return Visit(BuildPhase.SUCCEEDED, is_true(reason, message), stages=stages, attempts=attempts)


def _failed(failure: Failure, stages: tuple[StageReport, ...], attempts: int) -> Visit:
    hint = "" if failure.failure_class is FailureClass.DETERMINISTIC else f" (after {failure.attempts} attempts)"
    return Visit(
        phase=BuildPhase.FAILED,
        ready=is_false(failure.reason, failure.message + hint),
        failure=failure,
        stages=stages or None,
        attempts=attempts,
    )


def _status(
    snapshot: BuildSnapshot, build: EngineBuild, known: Known, visit: Visit, now: datetime
) -> EngineBuildStatus:
    old = build.status
    generation = build.metadata.generation or 1
    failed, done = visit.phase is BuildPhase.FAILED, visit.phase is BuildPhase.SUCCEEDED
    reason = visit.ready.reason
    reconciling = is_false("Steady", "") if failed or done else is_true("Progressing", visit.ready.message)
    stalled = is_true(reason, visit.ready.message) if failed else is_false("Steady", "")
    findings = [("Ready", visit.ready), ("Reconciling", reconciling), ("Stalled", stalled)]
    peak = max(
        [old.resources.peak_memory_bytes]
        + [view.outcome.peak_memory_bytes for view, _, _ in known.views if view.outcome is not None]
    )
    held = sum(view.outcome.seconds for view, _, _ in known.views if view.outcome is not None)
    return EngineBuildStatus(
        observed_generation=generation,
        conditions=merged(findings, old.conditions, generation=generation, now=now),
        phase=visit.phase,
        stages=list(visit.stages) if visit.stages is not None else old.stages,
        checkpoint=known.sizes.checkpoint,
        draft_checkpoint=known.sizes.draft,
        artifact=known.artifact,
        evidence=list(known.evidence.values()),
        failure=visit.failure,
        # Each attempt holds one accelerator from start to end. Jobs may be cleaned away, what they took stays.
        resources=BuildResources(
            peak_memory_bytes=peak, accelerator_seconds=max(old.resources.accelerator_seconds, round(held, 2))
        ),
        attempts=visit.attempts,
        retry_after=visit.retry_after,
    )


def _events(snapshot: BuildSnapshot, old: EngineBuildStatus, visit: Visit) -> list[Emit]:
    about, occasion = snapshot.manifest, f"{visit.phase.value}-{visit.attempts}"
    if visit.phase is BuildPhase.SUCCEEDED and old.phase is not BuildPhase.SUCCEEDED:
        return [Emit(about, "Normal", visit.ready.reason, visit.ready.message, occasion)]
    if visit.phase is BuildPhase.FAILED and old.phase is not BuildPhase.FAILED:
        return [Emit(about, "Warning", "BuildFailed", f"{visit.ready.reason}: {visit.ready.message}", occasion)]
    if any(isinstance(effect, Create) for effect in visit.effects):
        return [Emit(about, "Normal", "BuildStarted", visit.ready.message, occasion)]
    if visit.retry_after and old.retry_after != visit.retry_after:
        return [Emit(about, "Warning", "BuildRetrying", visit.ready.message, occasion)]
    return []


def _malformed(snapshot: BuildSnapshot, problem: str, now: datetime) -> Plan:
    generation = int(snapshot.manifest["metadata"].get("generation", 1))
    if mapping(snapshot.manifest, "status").get("observedGeneration") == generation:
        return Plan()
    findings = [("Ready", is_false("InvalidSpec", problem)), ("Stalled", is_true("InvalidSpec", problem))]
    conditions = [item.wire() for item in merged(findings, [], generation=generation, now=now)]
    patch = {"observedGeneration": generation, "conditions": conditions, "phase": BuildPhase.FAILED.value}
    return Plan((PatchStatus(Reference.to(snapshot.manifest), patch, snapshot.manifest["metadata"].get("uid")),))


def _ended(job: Object) -> str | None:
    """When a Job was over; that it has failed is known (FailureTarget) before its pods have ended (Failed)."""
    stamps = {
        condition.get("type"): str(condition.get("lastTransitionTime") or "")
        for condition in job.get("status", {}).get("conditions", [])
        if condition.get("status") == "True"
    }
    return stamps.get("Complete") or stamps.get("Failed") or stamps.get("FailureTarget") or None


def _foreign(key: str) -> Failure:
    return Failure(
        failure_class=FailureClass.DETERMINISTIC,
        reason="KeyMismatch",
        message=f"the builder reported on key {key[:16]}, which is not this build's",
        retryable=False,
    )
