"""Walks the ladder: builds the first undecided rung, judges what was measured, chooses the first that passes.

A rung is rejected when its build cannot succeed, when its gate fails, or when it is not faster than the baseline (or
than a rung before it). The plain model has no speed to prove: it is only there when the user lists it.
"""

from __future__ import annotations

from dataclasses import replace

from enginewright_api.evidence import Verdict
from enginewright_api.optimized_model import LastFailure, RungStatus

from .conditions import Finding, in_transition, is_false, is_true
from .draft import Draft, Rung, Target
from .judgement import Judged, bound_sentence, judge_rung, use
from .no_engine import BUILT, none_passed
from .will_fit import misfit


def ladder(draft: Draft) -> Draft:
    """Sets Built, the rungs' statuses and the target; creates the EngineBuild that is needed next."""
    spec = draft.spec
    if not draft.rungs or spec is None:
        return draft
    judged: list[Judged] = []
    best_speedup = 1.0
    for rung in draft.rungs:
        failure = misfit(draft.snapshot, rung)
        if failure is not None:
            # What its build would end with: none is begun for it.
            result = Judged(rung, f"will not fit: {failure.message}", failure=failure, rejected=True)
        else:
            draft = use(draft, rung)
            result = _compared(judge_rung(rung, draft.snapshot.build(rung.build_name), spec.quality), best_speedup)
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
        return none_passed(draft, judged)
    assert last.build is not None and last.measured is not None  # noqa: S101 - neither undecided nor rejected
    artifact = last.build.status.artifact
    if artifact is None:
        return draft.found(BUILT, in_transition("Building", f"{last.rung.title}: waiting for the artifact's digest"))
    target = Target(last.rung, artifact, last.measured)
    return replace(draft, target=target).found(BUILT, is_true("EngineReady", last.message))


def _compared(judged: Judged, best_speedup: float) -> Judged:
    """A rung whose gate passed, held against the fastest before it."""
    if judged.rejected or judged.measured is None:
        return judged
    rung, speedup, bound = judged.rung, judged.measured.benchmark.speedup, bound_sentence(judged.measured.quality)
    if rung.optimized and speedup <= best_speedup:
        message = f"gate passed ({bound}), but its speed-up of {speedup:.2f} is not above {best_speedup:.2f}"
        return judged.saying(message, rejected=True)
    return judged.saying(f"chosen: {rung.title}, {speedup:.2f} times the baseline's speed; {bound}", rejected=False)


def _pending(judged: Judged, count: int) -> Finding:
    position = f"rung {judged.rung.number + 1} of {count} ({judged.rung.title})"
    if judged.failure is not None:
        return is_false("BuildFailed", f"{position}: {judged.message}")
    return in_transition("Queued" if judged.queued else "Building", f"{position}: {judged.message}")


def _statuses(rungs: tuple[Rung, ...], judged: list[Judged]) -> list[RungStatus]:
    untried = rungs[len(judged) :]
    return [
        *(item.status() for item in judged),
        *(RungStatus(engine_build=rung.build_name, format=rung.format, message="not tried") for rung in untried),
    ]
