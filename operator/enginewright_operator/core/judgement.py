"""What is known about one rung: its build, what was measured, and the gate's verdict for this model's budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

from enginewright_api.engine_build import BuildPhase, EngineBuild, MeasuredEvidence
from enginewright_api.errors import FailureClass
from enginewright_api.evidence import QualityEvidence, Verdict, judge, rows_wanted
from enginewright_api.operation_spec import Quality
from enginewright_api.optimized_model import RungStatus
from enginewright_api.outcome import Failure, StageState

from .draft import Draft, Rung
from .effects import Patch, Reference
from .engine_builds import EVIDENCE_MOST, create_engine_build, use_engine_build


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

    @property
    def queued(self) -> bool:
        """Its build has not begun."""
        return self.build is None or self.build.status.phase is BuildPhase.QUEUED

    def saying(self, message: str, *, rejected: bool) -> Judged:
        """With the sentence that the status shows."""
        return replace(self, message=message, rejected=rejected)

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


def use(draft: Draft, rung: Rung) -> Draft:
    """Makes sure that the rung's EngineBuild exists, is owned by this model and measures what this model asks for."""
    manifest = draft.snapshot.builds.get(rung.build_name)
    if manifest is None:
        return draft.doing(create_engine_build(draft.snapshot, rung))
    patch = use_engine_build(manifest, draft.snapshot, rung)
    if patch is None:
        return draft
    metadata = manifest["metadata"]
    return draft.doing(Patch(Reference.to(manifest), patch, metadata.get("uid"), metadata.get("resourceVersion")))


def judge_rung(rung: Rung, build: EngineBuild | None, quality: Quality) -> Judged:
    """Undecided while its build runs; rejected when that cannot succeed or its gate fails; else measured and passed."""
    if build is None:
        return Judged(rung, "waiting for its build to start")
    measured = next((item for item in build.status.evidence if item.request_digest == rung.evidence.digest), None)
    if measured is not None:
        return _judge_evidence(rung, build, measured, quality)
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


def bound_sentence(quality: QualityEvidence) -> str:
    """The drop, its bound and the budget, for people."""
    return (
        f"{quality.metric.value} drop {quality.drop:.4g}, at most {quality.drop_upper_bound:.4g}"
        f" at confidence {quality.confidence:g} over {quality.samples} samples; budget {quality.max_drop:g}"
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


def _judge_evidence(rung: Rung, build: EngineBuild, measured: MeasuredEvidence, quality: Quality) -> Judged:
    judged = judged_quality(measured, max_drop=quality.max_drop, confidence=quality.confidence)
    measured, verdict = measured.model_copy(update={"quality": judged}), judged.verdict
    if verdict is Verdict.PASSED:
        return Judged(rung, f"gate passed ({bound_sentence(judged)})", build, measured, verdict)
    what = "gate failed"
    if verdict is Verdict.INCONCLUSIVE:
        what = f"gate inconclusive, {rows_wanted(judged)} are needed"
    return Judged(rung, f"{what}: {bound_sentence(judged)}", build, measured, verdict, rejected=True)


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
