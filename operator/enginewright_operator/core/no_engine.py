"""Why a model has no engine: every rung failed to build, lost too much, or gained nothing."""

from __future__ import annotations

from dataclasses import replace

from enginewright_api.evidence import Verdict
from enginewright_api.optimized_model import LastFailure

from .conditions import is_false
from .draft import Draft
from .judgement import Judged

BUILT = "Built"


def none_passed(draft: Draft, judged: list[Judged], *, lacking: str = "NoSpeedup") -> Draft:
    """Sets Built to False; `lacking` is the reason when gates passed and nothing was gained by it."""
    measured = [item for item in judged if item.measured is not None]
    if measured:
        return _none_good_enough(draft, measured, lacking)
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


def _none_good_enough(draft: Draft, measured: list[Judged], lacking: str) -> Draft:
    passed = [item for item in measured if item.verdict is Verdict.PASSED]
    if passed:
        reason = lacking
        best = max(passed, key=lambda item: item.measured.benchmark.speedup if item.measured else 0.0)
    else:
        reason = "QualityBelowBudget"
        best = min(measured, key=lambda item: item.measured.quality.drop_upper_bound if item.measured else 1.0)
    message = f"no rung may be deployed; the best is {best.rung.title}: {best.message}"
    draft = replace(draft, failure=LastFailure(stage="verify", reason=reason, message=message, time=""))
    return draft.found(BUILT, is_false(reason, message))
