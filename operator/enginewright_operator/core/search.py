"""Recipe search: which candidate to build next, given the evidence so far, and which one wins.

A greedy walk, one build at a time. First the precisions; then, on the best of them, steps that take something of the
network away, from gentle to strong; then the steps that paid, together. What evidence has made pointless is skipped
with the reason. The walk does not depend on the budget, which only ends it: more budget never gives a worse engine.
No clock, no state: the same builds give the same answer after any restart.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

from enginewright_api.engine_build import MeasuredEvidence
from enginewright_api.evidence import Verdict
from enginewright_api.goals import Result, pareto_front
from enginewright_api.optimization import Format, Profile
from enginewright_api.optimization import Search as Budget
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.recipe import Task

from .candidates import BITS, WEIGHT_ONLY, Candidate, Pool, Step
from .judgement import Judged

BEFORE_ANY_STEP = ("fetch", "baseline", "reference")
"""Stages that are the same for every candidate: what fails there fails them all."""

DRAFT_STAGE = "fetch-draft"
"""The same for every candidate with the same draft."""

BY_FAR = 2.0
"""Drops beyond this many budgets are not a matter of the method that found the scales."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that was built, or could not be."""

    candidate: Candidate
    judged: Judged
    result: Result | None
    """None where nothing was measured."""
    seconds: float

    @property
    def gain(self) -> float:
        """How many times better than the baseline on the profile's goal; 0 where nothing was measured."""
        return self.result.gain if self.result is not None else 0.0

    @property
    def measured(self) -> MeasuredEvidence | None:
        """Quality, judged for this model, and speed."""
        return self.judged.measured

    @property
    def passed(self) -> bool:
        """Whether the gate passed."""
        return self.judged.verdict is Verdict.PASSED

    @property
    def drop(self) -> float:
        """Measured drop."""
        return self.measured.quality.drop if self.measured is not None else 0.0

    @property
    def rank(self) -> tuple[float, float, int]:
        """Better is larger: the goal, then the quality that is certain, then the size."""
        return (self.result.gain, self.result.quality, self.result.size) if self.result is not None else (0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A candidate that is not built, and why."""

    candidate: Candidate
    reason: str


Course = Generator[Candidate | Skipped, Trial | None, None]


@dataclass(frozen=True, slots=True)
class Search:
    """How a search stands."""

    entries: tuple[Trial | Skipped, ...]
    """In the order of the walk."""
    under_way: Judged | None
    """The candidate that is to be built, or is being built; None when the search is over."""
    stopped_by: str
    """What part of the budget ended it; empty when there was nothing left to try."""
    front: frozenset[str]
    """Keys of the measured candidates that no other one beats in goal, quality bound and size together."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """What was built."""
        return tuple(entry for entry in self.entries if isinstance(entry, Trial))

    @property
    def seconds(self) -> float:
        """What the builds took, as they recorded it."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The winner among those whose gate passed and that gain anything."""
        return max((trial for trial in self.trials if trial.passed and trial.gain > 1.0),
                   key=lambda trial: trial.rank, default=None)  # fmt: skip


def search(
    pool: Pool, budget: Budget, look: Callable[[Candidate], Judged], *, profile: Profile, max_drop: float
) -> Search:
    """Walk as far as evidence reaches. `look` tells what is known about a candidate; it must not change its mind."""
    course = walk(pool, max_drop=max_drop)
    entries: list[Trial | Skipped] = []
    tried: dict[str, Trial] = {}
    under_way: Judged | None = None
    stopped_by = ""
    asked = next(course, None)
    while asked is not None:
        trial: Trial | None = None
        if isinstance(asked, Skipped):
            entries.append(asked)
        elif asked.rung.key in tried:
            trial = tried[asked.rung.key]
        else:
            judged = look(asked)
            stopped_by = _exhausted(budget, tried.values(), begun=judged.build is not None)
            if stopped_by:
                entries.append(Skipped(asked, f"not tried: {stopped_by}"))
                break
            if judged.undecided:
                under_way = judged
                break
            trial = _trial(asked, judged, profile)
            tried[asked.rung.key] = trial
            entries.append(trial)
        try:
            asked = course.send(trial)
        except StopIteration:
            asked = None
    keys = frozenset(trial.candidate.rung.key for trial in front(tried.values()))
    return Search(tuple(entries), under_way, stopped_by, keys)


def walk(pool: Pool, *, max_drop: float) -> Course:
    """The order of the search: yields candidates, is sent what became of them."""
    trials: list[Trial] = []
    for candidate in pool.precisions:
        reason = _pointless(candidate, trials, pool.spec, max_drop)
        if reason:
            yield Skipped(candidate, reason)
        else:
            trials.append(_sent((yield candidate)))
    base = _best(trials)
    if base is None:
        yield from _nothing_to_build_on(pool)
        return
    paid: list[tuple[Step, Trial]] = []
    for chain in pool.chains:
        wider = next((trial for step, trial in paid if chain[0].kind in step.covers), None)
        if wider is not None:
            yield from _covered(pool, base, chain, wider)
        else:
            yield from _stronger_and_stronger(pool, base, chain, paid)
    yield from _together(pool, base, paid, max_drop)


def front(trials: Iterable[Trial]) -> list[Trial]:
    """Those measured that no other one equals or beats in goal, quality bound and size, and beats in one of them."""
    measured = [(trial, trial.result) for trial in trials if trial.result is not None]
    places = pareto_front([result for _, result in measured])
    return [measured[place][0] for place in places]


def _trial(candidate: Candidate, judged: Judged, profile: Profile) -> Trial:
    seconds = judged.build.status.resources.accelerator_seconds if judged.build is not None else 0.0
    measured = judged.measured
    result = Result.of(profile, measured.quality, measured.benchmark) if measured is not None else None
    return Trial(candidate, judged, result, seconds)


def _exhausted(budget: Budget, trials: Iterable[Trial], *, begun: bool) -> str:
    """Which part of the budget forbids the next build. Minutes forbid to begin one: what later measurements for another
    model add to an engine's minutes must not undo a search that is over.
    """
    done = list(trials)
    if len(done) >= budget.max_builds:
        return f"the budget of {budget.max_builds} builds is used up"
    if not begun and sum(trial.seconds for trial in done) >= 60 * budget.max_minutes:
        return f"the budget of {budget.max_minutes} minutes is used up"
    return ""


def _best(trials: Iterable[Trial]) -> Trial | None:
    return max((trial for trial in trials if trial.passed), key=lambda trial: trial.rank, default=None)


def _sent(trial: Trial | None) -> Trial:
    assert trial is not None  # noqa: S101 - a candidate is always answered with its trial
    return trial


def _pointless(candidate: Candidate, trials: list[Trial], spec: OptimizedModelSpec, max_drop: float) -> str:
    """Why evidence makes a precision not worth a build; empty when it is."""
    for trial in trials:
        for applies, why in _verdicts(candidate, trial, trials, spec, max_drop):
            if applies:
                return f"skipped: {why}"
    return ""


def _verdicts(
    candidate: Candidate, trial: Trial, trials: list[Trial], spec: OptimizedModelSpec, max_drop: float
) -> Iterator[tuple[bool, str]]:
    """What one trial says against a precision: whether it does, and the sentence."""
    other, name, lost = trial.candidate, candidate.format.value, f"lost {trial.drop:.4g}"
    same_backend, same_format = other.backend is candidate.backend, other.format is candidate.format
    stage = trial.judged.failure.stage if trial.judged.failure is not None else ""
    yield stage in BEFORE_ANY_STEP, f"every candidate would fail as {other.title} did, in stage {stage}"
    same_draft = candidate.rung.recipe.draft_source == other.rung.recipe.draft_source
    yield stage == DRAFT_STAGE and same_draft, f"it would fail as {other.title} did, whose draft could not be fetched"
    yield trial.passed and same_format and _alternative(candidate, trials), f"{name} passed already as {other.title}"
    won = trial.passed and trial.gain > 1.0
    half = 2 * BITS[other.format] <= BITS[candidate.format]
    yield won and same_backend and half, f"{other.title} passed with fewer bits a weight"
    # Encoders are bound by arithmetic; generating text by reading the weights.
    bound = spec.task is not Task.TEXT_GENERATION and spec.optimization.profile is not Profile.SIZE
    computes = other.format in (Format.INT8, Format.FP8)
    yield (
        won and bound and computes and candidate.format in WEIGHT_ONLY,
        f"{other.title} passed and computes in few bits; {name} only stores weights so",
    )
    yield (
        trial.drop > BY_FAR * max_drop and same_format and (same_backend or candidate.format in WEIGHT_ONLY),
        f"{other.title} {lost}, by far too much for another method to make up for",
    )
    failed = trial.judged.verdict is Verdict.FAILED
    fewer = (other.format, candidate.format) == (Format.INT4, Format.INT2)
    yield failed and fewer, f"{other.title} already {lost}; fewer bits lose more"


def _alternative(candidate: Candidate, trials: list[Trial]) -> bool:
    """Whether the backend's preferred method for the format was tried already."""
    return any(
        (trial.candidate.backend, trial.candidate.format) == (candidate.backend, candidate.format) for trial in trials
    )


def _nothing_to_build_on(pool: Pool) -> Course:
    for chain in pool.chains:
        candidate = pool.extended(pool.precisions[0], chain[0]) if pool.precisions else None
        if candidate is not None:
            yield Skipped(candidate, "skipped: no precision passed its gate, so there is nothing to take away from")


def _covered(pool: Pool, base: Trial, chain: tuple[Step, ...], wider: Trial) -> Course:
    candidate = pool.extended(base.candidate, chain[0])
    if candidate is not None:
        yield Skipped(candidate, f"skipped: {wider.candidate.title} passed and removes as much and more")


def _stronger_and_stronger(pool: Pool, base: Trial, chain: tuple[Step, ...], paid: list[tuple[Step, Trial]]) -> Course:
    """Steps of one kind on the base until one does not pay; the last that did joins `paid`."""
    last: tuple[Step, Trial] | None = None
    hopeless = ""
    for step in chain:
        candidate = pool.extended(base.candidate, step)
        if candidate is None:
            continue
        if hopeless:
            yield Skipped(candidate, hopeless)
            continue
        before = last[1] if last is not None else base
        trial = _sent((yield candidate))
        if trial.passed and trial.gain > before.gain:
            last = (step, trial)
        else:
            hopeless = _why_no_stronger(trial, before)
    if last is not None:
        paid.append(last)


def _why_no_stronger(trial: Trial, before: Trial) -> str:
    said = f"skipped: the gentler {trial.candidate.title} "
    if trial.judged.failure is not None:
        return said + f"could not be built ({trial.judged.failure.reason})"
    if not trial.passed:
        return said + "did not pass its gate"
    return said + f"gained nothing over {before.candidate.title} ({trial.gain:.2f} against {before.gain:.2f})"


def _together(pool: Pool, base: Trial, paid: list[tuple[Step, Trial]], max_drop: float) -> Course:
    """The best step with the next best, and so on, while it pays."""
    ordered = sorted(paid, key=lambda item: item[1].rank, reverse=True)
    if not ordered:
        return
    current = ordered[0][1]
    for step, alone in ordered[1:]:
        candidate = pool.extended(current.candidate, step)
        if candidate is None:
            continue
        expected = current.drop + alone.drop - base.drop
        if expected > max_drop:
            yield Skipped(candidate, f"skipped: its steps alone already lose {expected:.4g} together")
            continue
        trial = _sent((yield candidate))
        if trial.passed and trial.gain > current.gain:
            current = trial
