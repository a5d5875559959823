"""Walks the ladder: builds the first undecided rung, judges what was measured, chooses the first that passes.

A rung is rejected when its build cannot succeed, when its gate fails, or when it is not faster than the baseline (or
than a rung before it). The plain model has no speed to prove: it is only there when the user lists it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from enginewright_api.engine_build import BuildPhase, EngineBuild, MeasuredEvidence
from enginewright_api.errors import FailureClass
from enginewright_api.evidence import QualityEvidence, Verdict, judge
from enginewright_api.optimized_model import LastFailure, OptimizedModelSpec, RungStatus
from enginewright_api.outcome import Failure, StageState

from .conditions import Finding, in_transition, is_false, is_true
from .draft import Draft, Rung, Target
from .effects import Patch, Reference
from .engine_builds import EVIDENCE_MOST, create_engine_build, use_engine_build

BUILT = "Built"


@dataclass(frozen=True, slots=True)
class Judged:
    """One rung and what is known about it."""

    rung: Rung
    message: str
    build: EngineBuild | None = None
    measured: MeasuredEvidence | None = None
    verdict: Verdict | None = None
    failure: Failure | None = None
    rejected: bool = False

    @property
    def undecided(self) -> bool:
        """Neither rejected nor measured."""
        return not self.rejected and self.measured is None

    def status(self) -> RungStatus:
        """As it stands in the model's status."""
        measured = self.measured
        return RungStatus(
            engine_build=self.rung.build_name,
            format=self.rung.format,
            verdict=self.verdict,
            quality=measured.quality if measured else None,
            speedup=measured.benchmark.speedup if measured else None,
            message=self.message,
        )


def ladder(draft: Draft) -> Draft:
    """Sets Built, the rungs' statuses and the target; creates the EngineBuild that is needed next."""
    spec = draft.spec
    if not draft.rungs or spec is None:
        return draft
    judged: list[Judged] = []
    best_speedup = 1.0
    for rung in draft.rungs:
        draft = _used(draft, rung)
        result = _judge(rung, draft.snapshot.build(rung.build_name), spec, best_speedup)
        judged.append(result)
        if result.measured is not None and result.verdict is Verdict.PASSED:
            best_speedup = max(best_speedup, result.measured.benchmark.speedup)
        if not result.rejected:
            break
    draft = replace(draft, rung_statuses=tuple(_statuses(draft.rungs, judged)))
    last = judged[-1]
    if last.undecided:
        if last.failure is not None:
            draft = replace(draft, failure=LastFailure.of(last.failure, time=""))
        return draft.found(BUILT, _pending(last, len(draft.rungs)))
    if last.rejected:
        return _none_passed(draft, judged)
    assert last.build is not None and last.measured is not None  # noqa: S101 - neither undecided nor rejected
    artifact = last.build.status.artifact
    if artifact is None:
        return draft.found(BUILT, in_transition("Building", f"{last.rung.title}: waiting for the artifact's digest"))
    target = Target(last.rung, artifact, last.measured)
    return replace(draft, target=target).found(BUILT, is_true("EngineReady", last.message))


def _used(draft: Draft, rung: Rung) -> Draft:
    """Makes sure that the rung's EngineBuild exists, is owned by this model and measures what this model asks for."""
    manifest = draft.snapshot.builds.get(rung.build_name)
    if manifest is None:
        return draft.doing(create_engine_build(draft.snapshot, rung))
    patch = use_engine_build(manifest, draft.snapshot, rung)
    if patch is None:
        return draft
    metadata = manifest["metadata"]
    return draft.doing(Patch(Reference.to(manifest), patch, metadata.get("uid"), metadata.get("resourceVersion")))


def _judge(rung: Rung, build: EngineBuild | None, spec: OptimizedModelSpec, best_speedup: float) -> Judged:
    if build is None:
        return Judged(rung, "waiting for its build to start")
    measured = next((item for item in build.status.evidence if item.request_digest == rung.evidence.digest), None)
    if measured is not None:
        return _judge_evidence(rung, build, measured, spec, best_speedup)
    failure = build.status.failure
    if build.status.phase is BuildPhase.FAILED and failure is not None:
        # An outage says nothing about the rung: falling to the next one would deploy less than was asked for.
        rejected = failure.failure_class is not FailureClass.TRANSIENT
        message = f"build failed: {failure.reason}: {failure.message}"
        return Judged(rung, message, build, failure=failure, rejected=rejected)
    if len(build.spec.evidence) >= EVIDENCE_MOST and rung.evidence.digest not in _digests(build):
        message = f"EngineBuild {rung.build_name} holds evidence for {EVIDENCE_MOST} data sets, which is the most"
        full = Failure(
            failure_class=FailureClass.DETERMINISTIC, reason="EvidenceLimit", message=message, retryable=False
        )
        return Judged(rung, message, build, failure=full, rejected=True)
    return Judged(rung, _progress(build), build)


def _judge_evidence(
    rung: Rung, build: EngineBuild, measured: MeasuredEvidence, spec: OptimizedModelSpec, best_speedup: float
) -> Judged:
    speedup = measured.benchmark.speedup
    quality = judged_quality(measured, max_drop=spec.quality.max_drop, confidence=spec.quality.confidence)
    measured, verdict = measured.model_copy(update={"quality": quality}), quality.verdict
    bound = (
        f"{quality.metric.value} drop {quality.drop:.4g}, at most {quality.drop_upper_bound:.4g}"
        f" at confidence {quality.confidence:g} over {quality.samples} samples; budget {quality.max_drop:g}"
    )
    if verdict is not Verdict.PASSED:
        what = "gate failed" if verdict is Verdict.FAILED else "gate inconclusive, more samples are needed"
        return Judged(rung, f"{what}: {bound}", build, measured, verdict, rejected=True)
    if rung.optimized and speedup <= best_speedup:
        message = f"gate passed ({bound}), but its speed-up of {speedup:.2f} is not above {best_speedup:.2f}"
        return Judged(rung, message, build, measured, verdict, rejected=True)
    return Judged(
        rung, f"chosen: {rung.title}, {speedup:.2f} times the baseline's speed; {bound}", build, measured, verdict
    )


def judged_quality(measured: MeasuredEvidence, *, max_drop: float, confidence: float) -> QualityEvidence:
    """Evidence as it reads for this model's budget; the bounds at other confidences stay with the EngineBuild."""
    quality = measured.quality
    bounds = sorted({quality.drop_upper_bound, *quality.bounds})
    # The bound that `judge` looks at is the smallest budget that it would let pass.
    bound = next(item for item in bounds if judge(quality, max_drop=item, confidence=confidence) is Verdict.PASSED)
    verdict = judge(quality, max_drop=max_drop, confidence=confidence)
    return quality.model_copy(
        update={
            "drop_upper_bound": bound,
            "max_drop": max_drop,
            "confidence": confidence,
            "bounds": [],
            "verdict": verdict,
        }
    )


def _pending(judged: Judged, count: int) -> Finding:
    position = f"rung {judged.rung.number + 1} of {count} ({judged.rung.title})"
    if judged.failure is not None:
        return is_false("BuildFailed", f"{position}: {judged.message}")
    queued = judged.build is None or judged.build.status.phase is BuildPhase.QUEUED
    return in_transition("Queued" if queued else "Building", f"{position}: {judged.message}")


def _none_passed(draft: Draft, judged: list[Judged]) -> Draft:
    measured = [item for item in judged if item.measured is not None]
    if measured:
        return _none_good_enough(draft, measured)
    failures = [item for item in judged if item.failure is not None]
    last = failures[-1]
    assert last.failure is not None  # noqa: S101 - only failures are in the list
    reason = {"OutOfMemory": "OutOfMemory", "ToolchainMissing": "ToolchainMismatch"}.get(
        last.failure.reason, "BuildFailed"
    )
    titles: dict[str, list[str]] = {}
    for item in failures:
        titles.setdefault(item.message, []).append(item.rung.title)
    # A source that is not there fails every rung in the same words; once is enough.
    message = "; ".join(f"{', '.join(rungs)}: {said}" for said, rungs in titles.items())
    draft = replace(draft, failure=LastFailure.of(last.failure, time=""))
    return draft.found(BUILT, is_false(reason, message))


def _none_good_enough(draft: Draft, measured: list[Judged]) -> Draft:
    passed = [item for item in measured if item.verdict is Verdict.PASSED]
    if passed:
        reason = "NoSpeedup"
        best = max(passed, key=lambda item: item.measured.benchmark.speedup if item.measured else 0.0)
    else:
        reason = "QualityBelowBudget"
        best = min(measured, key=lambda item: item.measured.quality.drop_upper_bound if item.measured else 1.0)
    message = f"no rung may be deployed; the best is {best.rung.title}: {best.message}"
    draft = replace(draft, failure=LastFailure(stage="verify", reason=reason, message=message, time=""))
    return draft.found(BUILT, is_false(reason, message))


def _statuses(rungs: tuple[Rung, ...], judged: list[Judged]) -> list[RungStatus]:
    untried = rungs[len(judged) :]
    return [
        *(item.status() for item in judged),
        *(RungStatus(engine_build=rung.build_name, format=rung.format, message="not tried") for rung in untried),
    ]


def _progress(build: EngineBuild) -> str:
    status = build.status
    if status.phase is BuildPhase.RUNNING:
        running = [stage.name for stage in status.stages if stage.state is StageState.RUNNING]
        return f"building, stage {running[-1]}" if running else "building"
    if status.failure is not None:
        return f"waiting to try again after {status.failure.reason}: {status.failure.message}"
    waiting = next((item.message for item in status.conditions if item.type == "Ready" and item.message), "")
    return waiting or "waiting for its build to start"


def _digests(build: EngineBuild) -> set[str]:
    return {request.digest for request in build.spec.evidence}
