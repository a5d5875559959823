"""Which engine the model is to have: the ladder's choice, or with `optimization.profile` the winner of the search."""

from __future__ import annotations

from dataclasses import replace

from enginewright_api.engine_build import BuildPhase, EngineBuild
from enginewright_api.optimization import Profile
from enginewright_api.optimization import Search as Budget
from enginewright_api.optimized_model import LastFailure, OptimizedModelSpec, RungStatus

from .candidates import Candidate
from .conditions import Finding, in_transition, is_false, is_true
from .draft import Draft, Rung, Target
from .judgement import Judged, bound_sentence, judge_rung, use
from .ladder import ladder
from .no_engine import BUILT, none_passed
from .search import Search, Skipped, Trial, search

RUNGS_MOST = 16
"""Entries that the status has room for."""


def choice(draft: Draft) -> Draft:
    """Sets Built, the rungs' statuses and the target; creates the EngineBuild that is needed next."""
    spec, pool = draft.spec, draft.pool
    if spec is None or pool is None or spec.optimization.profile is None:
        return ladder(draft)
    found = search_of(draft, spec)
    considered = [entry.candidate.rung for entry in found.entries]
    for trial in found.trials:
        draft = use(draft, trial.candidate.rung)
    if found.under_way is not None:
        draft = use(draft, found.under_way.rung)
        considered.append(found.under_way.rung)
    return _concluded(replace(draft, rungs=tuple(_numbered(considered))), spec, found)


def search_of(draft: Draft, spec: OptimizedModelSpec) -> Search:
    """How the search stands by the EngineBuilds there are."""
    pool, profile = draft.pool, spec.optimization.profile
    assert pool is not None and profile is not None  # noqa: S101 - checked by the caller

    def look(candidate: Candidate) -> Judged:
        build = draft.snapshot.build(candidate.rung.build_name)
        if build is not None and _ending(build):
            return Judged(candidate.rung, "building, about to end", build)
        return judge_rung(candidate.rung, build, spec.quality)

    budget = spec.optimization.search or Budget()
    return search(pool, budget, look, profile=profile, max_drop=spec.quality.max_drop)


def _ending(build: EngineBuild) -> bool:
    """Whether all is measured, but the builder has yet to tell what it took: the next build needs to know."""
    status = build.status
    at_work = status.phase in (BuildPhase.QUEUED, BuildPhase.RUNNING) and not status.resources.accelerator_seconds
    measured = {item.request_digest for item in status.evidence}
    return at_work and measured == {request.digest for request in build.spec.evidence}


def _concluded(draft: Draft, spec: OptimizedModelSpec, found: Search) -> Draft:
    profile, best = spec.optimization.profile, found.best
    assert profile is not None  # noqa: S101 - checked by the caller
    budget = spec.optimization.search or Budget()
    entries = [_told(entry, found, profile) for entry in found.entries]
    shown = _shown(found, entries)
    spent = f"{found.seconds / 60:.0f} of {budget.max_minutes} minutes"
    if found.under_way is not None:
        under_way = found.under_way
        status = under_way.saying(f"{under_way.rung.title}: {under_way.message}", rejected=False).status()
        draft = replace(draft, rung_statuses=(*shown[: RUNGS_MOST - 1], status))
        position = f"search {len(found.trials) + 1} of {budget.max_builds} builds, {spent}"
        return _pending(draft, under_way, f"{position}: {under_way.rung.title}: {under_way.message}")
    draft = replace(draft, rung_statuses=tuple(shown[:RUNGS_MOST]))
    if best is None:
        judged = [entry for entry in entries if isinstance(entry, Judged)]
        return none_passed(draft, judged, lacking="NoImprovement")
    assert best.judged.build is not None and best.measured is not None  # noqa: S101 - it passed
    artifact = best.judged.build.status.artifact
    if artifact is None:
        return draft.found(
            BUILT, in_transition("Building", f"{best.candidate.title}: waiting for the artifact's digest")
        )
    ended = found.stopped_by or "nothing is left to try"
    message = f"{_won(best, profile)}; search ended after {len(found.trials)} builds, {spent}: {ended}"
    target = Target(best.judged.rung, artifact, best.measured)
    return replace(draft, target=target).found(BUILT, is_true("EngineReady", message))


def _pending(draft: Draft, under_way: Judged, message: str) -> Draft:
    finding: Finding = in_transition("Queued" if under_way.queued else "Building", message)
    if under_way.failure is not None:
        draft = replace(draft, failure=LastFailure.of(under_way.failure, time=""))
        finding = is_false("BuildFailed", message)
    return draft.found(BUILT, finding)


def achievement(profile: Profile, trial: Trial) -> str:
    """What a trial came to on the goal, for people."""
    if profile is Profile.LATENCY:
        return f"{trial.gain:.2f} times the baseline's speed at batch 1"
    if profile is Profile.THROUGHPUT:
        return f"{trial.gain:.2f} times the baseline's inputs a second"
    size = trial.measured.benchmark.size_bytes if trial.measured is not None else 0
    return f"{size / 2**20:.1f} MiB, {trial.gain:.2f} times smaller than the baseline"


def _won(best: Trial, profile: Profile) -> str:
    bound = bound_sentence(best.measured.quality) if best.measured is not None else ""
    return f"chosen: {best.candidate.title}, {achievement(profile, best)}; {bound}"


def statuses(found: Search, profile: Profile) -> list[RungStatus]:
    """Every candidate that the walk came to, however many they are."""
    told = (_told(entry, found, profile) for entry in found.entries)
    return [item.status() if isinstance(item, Judged) else item for item in told]


def sentence_of(entry: Trial | Skipped, found: Search, profile: Profile) -> str:
    """Why a candidate was or was not chosen, without its title."""
    if isinstance(entry, Skipped):
        return entry.reason
    best = found.best
    if found.under_way is None and entry is best:
        return "chosen"
    if entry.measured is None or not entry.passed:
        return entry.judged.message
    if entry.gain <= 1.0:
        return "not better than the baseline"
    return f"{best.candidate.title} is better" if best is not None and entry is not best else "the best so far"


def _told(entry: Trial | Skipped, found: Search, profile: Profile) -> Judged | RungStatus:
    """An entry with the sentence that the status shows."""
    title, why = entry.candidate.title, sentence_of(entry, found, profile)
    if isinstance(entry, Skipped):
        rung = entry.candidate.rung
        return RungStatus(engine_build=rung.build_name, format=rung.format, message=f"{title}: {why}")
    judged = entry.judged
    if entry.measured is None:
        return judged.saying(f"{title}: {why}", rejected=True)
    front = "; on the Pareto front" if entry.candidate.rung.key in found.front else ""
    if why == "chosen":
        return judged.saying(_won(entry, profile) + front, rejected=False)
    message = f"{title}: {achievement(profile, entry)}; {judged.message}{front}"
    return judged.saying(message if why == judged.message else f"{message}; {why}", rejected=True)


def _shown(found: Search, entries: list[Judged | RungStatus]) -> list[RungStatus]:
    """Statuses in the order of the walk. Where they are too many: the best, the front, the built, then the rest."""
    best = found.best

    def importance(place: int) -> int:
        entry = found.entries[place]
        if isinstance(entry, Skipped):
            # Of methods that were not needed there are many, and they all say the same.
            return 3 if entry.candidate.steps else 4
        if entry is best:
            return 0
        return 1 if entry.candidate.rung.key in found.front else 2

    kept = sorted(sorted(range(len(entries)), key=importance)[: RUNGS_MOST - (found.under_way is not None)])
    return [item.status() if isinstance(item, Judged) else item for item in (entries[place] for place in kept)]


def _numbered(rungs: list[Rung]) -> list[Rung]:
    unique = {rung.key: rung for rung in rungs}
    return [replace(rung, number=number) for number, rung in enumerate(unique.values())]
