"""The status: all conditions at the first visit, the first failing one summed up in Ready, nothing written twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from enginewright_api.evidence import BenchmarkEvidence
from enginewright_api.meta import Condition
from enginewright_api.optimized_model import EngineStatus, LastFailure, OptimizedModelStatus, Performance

from .acceptance import ACCEPTED
from .conditions import FALSE, TRUE, UNKNOWN, Finding, in_transition, is_false, is_true, merged, rfc3339
from .cost import cost
from .draft import Draft
from .effects import Emit, PatchStatus, Reference
from .engines import Running, running_engines, selection
from .exposure import SERVABLE
from .no_engine import BUILT
from .render.serving import serving_labels
from .rollout_progress import ROLLED_OUT
from .scaling import AUTOSCALING
from .status_diff import status_patch

SUMMED_UP = (ACCEPTED, BUILT, ROLLED_OUT, SERVABLE, AUTOSCALING)
"""In the order in which a model comes to life; Ready names the first that does not hold."""

FOREIGN_KEYS = ("scaling",)
"""Written by the autoscaler."""


def status(draft: Draft) -> Draft:
    """Adds the status patch and the Events of this visit, if there is anything to say."""
    snapshot, old = draft.snapshot, draft.snapshot.status()
    draft = _completed(draft)
    findings = [*((name, draft.findings[name]) for name in SUMMED_UP), *_summary(draft.findings)]
    conditions = merged(findings, old.conditions, generation=snapshot.generation, now=draft.now)
    engines, selected = running_engines(snapshot), selection(snapshot)
    target = _target_status(draft, engines)
    selector = ",".join(f"{key}={value}" for key, value in serving_labels(snapshot.name, None).items())
    new = OptimizedModelStatus(
        observed_generation=snapshot.generation,
        conditions=conditions,
        replicas=sum(engine.existing for engine in engines.values()),
        selector=selector,
        active=_active_status(draft, old, engines, selected.label, target),
        target=target,
        class_choice=draft.class_choice or old.class_choice,
        endpoints=draft.endpoints,
        quality=draft.target.measured.quality if draft.target else (old.quality if target else None),
        rungs=list(draft.rung_statuses) if draft.rung_statuses is not None else old.rungs,
        performance=_performance(draft.target.measured.benchmark) if draft.target else old.performance,
        cost=cost(draft),
        rollout=draft.rollout,
        last_failure=_last_failure(draft, old),
    )
    patch = status_patch(snapshot.manifest.get("status", {}), new.wire(), foreign=FOREIGN_KEYS)
    if not patch:
        return draft
    events = tuple(_events(draft, old.conditions, conditions))
    return draft.doing(PatchStatus(Reference.to(snapshot.manifest), patch, snapshot.uid, events, may_wait=True))


def _completed(draft: Draft) -> Draft:
    """Conditions that no policy came to: what they wait for."""
    rest = {
        ACCEPTED: in_transition("Pending", "not looked at yet"),
        BUILT: is_false("NotAccepted", "the spec is not accepted")
        if _is_refused(draft)
        else in_transition("Pending", "waiting for acceptance"),
        ROLLED_OUT: _not_rolled_out(draft),
        SERVABLE: in_transition("NoReadyReplica", "no engine has been ready yet"),
        AUTOSCALING: in_transition("Pending", "waiting for acceptance"),
    }
    return replace(draft, findings={**rest, **draft.findings})


def _is_refused(draft: Draft) -> bool:
    """As opposed to waiting for what acceptance needs to know."""
    accepted = draft.findings.get(ACCEPTED)
    return accepted is not None and accepted.status is FALSE


def _not_rolled_out(draft: Draft) -> Finding:
    built = draft.findings.get(BUILT)
    if _is_refused(draft) or (built is not None and built.status is FALSE):
        return is_false("NoEngine", "there is no engine to roll out")
    return in_transition("WaitingForEngine", "rolled out when the engine is built")


def _summary(findings: Mapping[str, Finding]) -> list[tuple[str, Finding]]:
    """Ready, Reconciling and Stalled. The last two are abnormal when True, never both, and neither when steady."""
    failing = [(name, findings[name]) for name in SUMMED_UP if findings[name].status is not TRUE]
    steady = is_false("Steady", "")
    if not failing:
        return [("Ready", is_true("Ready", "the model serves as asked")), ("Reconciling", steady), ("Stalled", steady)]
    name, first = failing[0]
    ready = Finding(FALSE if first.status is FALSE else UNKNOWN, first.reason, f"{name}: {first.message}")
    stuck = next((findings[name] for name in (ACCEPTED, BUILT, ROLLED_OUT) if findings[name].status is FALSE), None)
    if stuck is not None:
        return [("Ready", ready), ("Reconciling", steady), ("Stalled", is_true(stuck.reason, stuck.message))]
    moving = any(finding.status is UNKNOWN for _, finding in failing)
    reconciling = is_true(first.reason, first.message) if moving else steady
    return [("Ready", ready), ("Reconciling", reconciling), ("Stalled", steady)]


def _target_status(draft: Draft, engines: Mapping[str, Running]) -> EngineStatus | None:
    target = draft.target
    if target is None:
        return None
    digest = target.artifact.digest.removeprefix("sha256:")
    running = engines.get(digest[:32])
    return EngineStatus(
        engine_build=target.rung.build_name,
        artifact_digest=target.artifact.digest,
        backend=target.rung.recipe.backend.value,
        format=target.rung.format,
        accelerator_class=target.rung.accelerator.accelerator_class,
        replicas=running.ready if running is not None else 0,
    )


def _active_status(
    draft: Draft,
    old: OptimizedModelStatus,
    engines: Mapping[str, Running],
    selected: str | None,
    target: EngineStatus | None,
) -> EngineStatus | None:
    """The engine that gets the requests, once it has been ready. While two share them, the former one."""
    previous = old.active
    if selected is None:
        running = engines.get(_label(previous)) if previous is not None else None
        return previous.model_copy(update={"replicas": running.ready}) if previous and running else None
    running = engines.get(selected)
    if running is None:
        return None
    if previous is not None and _label(previous) == selected:
        # One engine may run on several classes, where they do not differ in what an engine depends on.
        on = target.accelerator_class if target is not None and _label(target) == selected else None
        return previous.model_copy(
            update={"replicas": running.ready, "accelerator_class": on or previous.accelerator_class}
        )
    if running.ready == 0 and not draft.settled:
        return None
    return target if target is not None and _label(target) == selected else _recalled(draft, running)


def _recalled(draft: Draft, running: Running) -> EngineStatus | None:
    """Status of an engine whose record in the status is lost: from its EngineBuild."""
    build = draft.snapshot.build(running.build_name)
    if build is None or build.status.artifact is None:
        return None
    recipe = build.spec.recipe
    return EngineStatus(
        engine_build=running.build_name,
        artifact_digest=build.status.artifact.digest,
        backend=recipe.backend.value,
        format=recipe.quantization.format.value if recipe.quantization is not None else "None",
        accelerator_class=build.spec.accelerator.accelerator_class,
        replicas=running.ready,
    )


def _label(engine: EngineStatus) -> str:
    return engine.artifact_digest.removeprefix("sha256:")[:32]


def _performance(benchmark: BenchmarkEvidence) -> list[Performance]:
    figures = [Performance(metric="speedup", value=benchmark.speedup, unit="ratio")]
    for row in benchmark.measurements:
        for metric, value, unit in (
            ("p50Milliseconds", row.p50_milliseconds, "ms"),
            ("p95Milliseconds", row.p95_milliseconds, "ms"),
            ("throughputPerSecond", row.throughput_per_second, "1/s"),
            ("speedup", row.speedup, "ratio"),
        ):
            figures.append(
                Performance(metric=metric, value=value, unit=unit, batch_size=row.batch_size, tokens=row.tokens)
            )
    return figures[:64]


def _last_failure(draft: Draft, old: OptimizedModelStatus) -> LastFailure | None:
    """Root cause of what is wrong now, else of what was wrong last; cleared by the next success."""
    if draft.failure is None:
        return None if draft.settled else old.last_failure
    known = old.last_failure
    if known is not None and (known.stage, known.reason, known.message) == (
        draft.failure.stage,
        draft.failure.reason,
        draft.failure.message,
    ):
        return known
    return draft.failure.model_copy(update={"time": rfc3339(draft.now)})


_ROLLING = ("Progressing", "InsufficientCapacity")


def _events(draft: Draft, old: list[Condition], new: list[Condition]) -> list[Emit]:
    """One Event for each condition that came to hold, or that failed in a new way, and for the start of a rollout."""
    before = {condition.type: condition for condition in old}
    found = []
    for condition in new:
        previous, reason = before.get(condition.type), _event_reason(condition)
        if reason is None or (previous is not None and _event_reason(previous) == reason):
            continue
        since = previous.last_transition_time if previous is not None else "first"
        found.append(
            Emit(
                about=draft.snapshot.manifest,
                type="Warning" if condition.status is FALSE else "Normal",
                reason=reason,
                message=condition.message or condition.reason,
                occasion=f"{condition.type}-{condition.status.value}-{since}-{draft.snapshot.generation}",
            )
        )
    return found


def _event_reason(condition: Condition) -> str | None:
    """Reason of the Event for a condition; None where a person need not know."""
    if condition.type not in (ACCEPTED, BUILT, ROLLED_OUT, SERVABLE, "Ready"):
        return None
    if condition.status is TRUE:
        return condition.type
    if condition.status is UNKNOWN:
        return "RollingOut" if condition.type == ROLLED_OUT and condition.reason in _ROLLING else None
    # Ready only repeats what the condition before it said; so does what could not even begin.
    return None if condition.type == "Ready" or condition.reason in ("NotAccepted", "NoEngine") else condition.reason
