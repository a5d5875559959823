"""The recipe search as a function: whatever the evidence is, it keeps its budget, repeats itself and picks the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import BuildPhase, BuildResources, EngineBuild, EngineBuildStatus, MeasuredEvidence
from enginewright_api.errors import FailureClass
from enginewright_api.evidence import Verdict
from enginewright_api.goals import goal
from enginewright_api.names import engine_build_name
from enginewright_api.optimization import Format, Profile, QuantizationMethod
from enginewright_api.optimization import Search as Budget
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.outcome import Failure
from enginewright_api.recipe import Task, build_key
from enginewright_api.serving_spec import Backend
from enginewright_api.support import Support
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.candidates import Candidate, Pool, pool
from enginewright_operator.core.choice import RUNGS_MOST, choice
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.effects import Create
from enginewright_operator.core.engine_builds import create_engine_build
from enginewright_operator.core.judgement import Judged, judge_rung
from enginewright_operator.core.search import Search, Skipped, Trial, front, search
from tests.scenarios.evidence import artifact, evidence
from tests.scenarios.models import accelerator_class, model
from tests.scenarios.models import settings as operator_settings
from tests.unit.operator.snapshots import drafted, snapshot

MAX_DROP = 0.01
SPEC = OptimizedModelSpec.model_validate(model(optimization={"profile": "Latency"})["spec"])
CLASS = AcceleratorClass.of(accelerator_class(formats=["INT8", "FP16", "INT4", "INT2"]))


ENCODERS = frozenset({Task.EMBEDDING})
METHODS = QuantizationMethod
TABLE = (
    Support(Backend.OPENVINO, "cpu", ENCODERS, Format.NONE, ()),
    Support(Backend.OPENVINO, "cpu", ENCODERS, Format.FP16, ()),
    Support(
        Backend.OPENVINO, "cpu", ENCODERS, Format.INT8, (METHODS.SMOOTH_QUANT, METHODS.MIN_MAX, METHODS.PERCENTILE)
    ),
    Support(Backend.OPENVINO, "cpu", ENCODERS, Format.INT4, (METHODS.AWQ, METHODS.GPTQ)),
    Support(Backend.OPENVINO, "cpu", ENCODERS, Format.INT2, (METHODS.GPTQ,)),
    Support(Backend.ONNX_RUNTIME, "cpu", ENCODERS, Format.NONE, ()),
    Support(Backend.ONNX_RUNTIME, "cpu", ENCODERS, Format.INT8, (METHODS.DYNAMIC, METHODS.ENTROPY)),
    Support(Backend.TORCH, "cpu", ENCODERS, Format.NONE, ()),
)
"""A builder that has all of it, whatever ours has by now."""


def everything(profile: str = "Latency", **optimization: Any) -> Pool:
    """All candidates, whether a builder has them or not."""
    spec = OptimizedModelSpec.model_validate(model(optimization={"profile": profile, **optimization})["spec"])
    return pool(spec, CLASS, operator_settings().toolchain, lambda recipe, facts: [], TABLE)


POOLS = {profile: everything(profile.value) for profile in Profile}

Figures = dict[str, float]


@dataclass
class Bench:
    """Builders whose figures follow from a candidate alone. Only what was built is known."""

    figures: Callable[[Candidate], Figures | Failure]
    seconds: float = 30.0
    known: dict[str, EngineBuild] = field(default_factory=dict)

    def look(self, candidate: Candidate) -> Judged:
        return judge_rung(candidate.rung, self.known.get(candidate.rung.key), SPEC.quality)

    def build(self, rung: Any, candidate: Candidate) -> None:
        manifest = create_engine_build(snapshot(model()["spec"]), rung).manifest
        figures = self.figures(candidate)
        status = EngineBuildStatus(
            phase=BuildPhase.SUCCEEDED, resources=BuildResources(accelerator_seconds=self.seconds)
        )
        if isinstance(figures, Failure):
            status = status.model_copy(update={"phase": BuildPhase.FAILED, "failure": figures})
        else:
            found = evidence(rung.evidence.digest, **{**figures, "size_bytes": int(figures["size_bytes"])})
            measured = MeasuredEvidence(
                request_digest=found.request_digest, quality=found.quality, benchmark=found.benchmark
            )
            status = status.model_copy(update={"artifact": artifact(rung.key), "evidence": [measured]})
        self.known[rung.key] = EngineBuild.of({**manifest, "status": status.wire()})

    def run(self, candidates: Pool, profile: Profile, budget: Budget) -> Search:
        """Build what is asked for until nothing is."""
        seen: dict[str, Candidate] = {}

        def look(candidate: Candidate) -> Judged:
            seen[candidate.rung.key] = candidate
            return self.look(candidate)

        while True:
            found = search(candidates, budget, look, profile=profile, max_drop=MAX_DROP)
            assert len(found.trials) + (found.under_way is not None) <= budget.max_builds
            if found.under_way is None:
                return found
            assert found.seconds < 60 * budget.max_minutes, "no build begins after the minutes are used up"
            self.build(found.under_way.rung, seen[found.under_way.rung.key])


def luck(seed: int) -> Callable[[Candidate], Figures | Failure]:
    """Any figures, fixed by the candidate's key."""

    def figures(candidate: Candidate) -> Figures | Failure:
        random = Random(f"{seed} {candidate.rung.key}")  # noqa: S311 - test data
        if random.random() < 0.1:
            return broken(random.choice(["quantize", "compile", "fetch"]))
        drop = random.choice([0.0, 0.002, 0.008, 0.009, 0.02])
        return {
            "drop": drop, "bound": drop + random.choice([0.0, 0.0015, 0.004]), "speedup": random.uniform(0.5, 5.0),
            "size_bytes": random.randint(5, 120),
        }  # fmt: skip

    return figures


def broken(stage: str) -> Failure:
    return Failure(
        failure_class=FailureClass.DETERMINISTIC, stage=stage, reason="Broken", message="it broke", retryable=False
    )


PROFILES = st.sampled_from(list(Profile))
SEEDS = st.integers(0, 10**6)


@settings(deadline=None, max_examples=60)
@given(PROFILES, SEEDS, st.integers(1, 30), st.integers(1, 12))
def test_budget_repetition_and_the_winner(profile: Profile, seed: int, builds: int, minutes: int) -> None:
    budget = Budget(max_builds=builds, max_minutes=minutes)
    bench = Bench(luck(seed))
    found = bench.run(POOLS[profile], profile, budget)
    assert len(bench.known) == len(found.trials) <= builds
    again = search(everything(profile.value), budget, bench.look, profile=profile, max_drop=MAX_DROP)
    assert (again.trials, again.front, again.stopped_by) == (found.trials, found.front, found.stopped_by)
    passed = [trial for trial in found.trials if trial.passed and trial.gain > 1.0]
    assert (found.best is None) == (not passed)
    if found.best is not None:
        assert found.best.gain == max(trial.gain for trial in passed)
        assert found.best.candidate.rung.key in found.front
        assert found.best.measured is not None
        assert found.best.measured.quality.drop_upper_bound <= MAX_DROP


@settings(deadline=None, max_examples=40)
@given(PROFILES, SEEDS, st.tuples(*[st.integers(1, 12)] * 2), st.tuples(*[st.integers(1, 6)] * 2))
def test_more_budget_never_gives_a_worse_engine(
    profile: Profile, seed: int, given_builds: tuple[int, int], given_minutes: tuple[int, int]
) -> None:
    (builds, more_builds), (minutes, more_minutes) = given_builds, given_minutes
    small = Bench(luck(seed)).run(POOLS[profile], profile, Budget(max_builds=builds, max_minutes=minutes))
    large = Bench(luck(seed)).run(
        POOLS[profile], profile, Budget(max_builds=builds + more_builds, max_minutes=minutes + more_minutes)
    )
    assert [trial.candidate.rung.key for trial in large.trials][: len(small.trials)] == [
        trial.candidate.rung.key for trial in small.trials
    ]
    assert (large.best.gain if large.best else 0.0) >= (small.best.gain if small.best else 0.0)


@settings(deadline=None, max_examples=40)
@given(PROFILES, SEEDS)
def test_the_front_is_what_nothing_measured_beats(profile: Profile, seed: int) -> None:
    found = Bench(luck(seed)).run(POOLS[profile], profile, Budget(max_builds=40))
    on, measured = front(found.trials), [trial for trial in found.trials if trial.measured is not None]
    assert {trial.candidate.rung.key for trial in on} == found.front
    for one in measured:
        beaten = [
            other for other in on if other is not one and all(a >= b for a, b in zip(other.rank, one.rank, strict=True))
        ]
        assert (one in on) or beaten


def by_what(candidate: Candidate) -> Figures:
    """A plausible model: INT8 is 3 times as fast, each step multiplies, drops add up."""
    gain = {Format.INT8: 3.0, Format.FP16: 1.4, Format.INT4: 1.5, Format.INT2: 1.6}.get(candidate.format, 1.3)
    size = {Format.INT8: 23.0, Format.FP16: 45.0, Format.INT4: 13.0, Format.INT2: 8.0}.get(candidate.format, 90.0)
    drop = {Format.INT8: 0.002, Format.INT4: 0.03, Format.INT2: 0.2}.get(candidate.format, 0.0)
    for step in candidate.steps:
        strong = "50%" in step.title or "80%" in step.title
        gain *= 1.4 if strong else 1.2
        size *= 0.8 if strong else 0.9
        drop += 0.05 if strong else 0.003
    return {"drop": drop, "bound": drop + 0.001, "speedup": gain, "size_bytes": size}


def titles(found: Search) -> list[str]:
    return [trial.candidate.title for trial in found.trials]


def test_steps_go_on_top_of_the_best_precision_and_paying_ones_together() -> None:
    found = Bench(by_what).run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
    assert found.best is not None
    assert found.best.candidate.steps, "something was removed"
    assert found.best.candidate.title.startswith("INT8")
    steps = [trial for trial in found.trials if trial.candidate.steps]
    assert {trial.candidate.backend for trial in steps} == {found.trials[0].candidate.backend}
    assert len(found.best.candidate.steps) > 1, "the best step with another that paid"
    assert found.stopped_by == ""


def test_a_gentle_step_that_fails_spares_the_strong_one() -> None:
    def figures(candidate: Candidate) -> Figures:
        worse = 0.02 if any("heads" in step.kind for step in candidate.steps) else 0.0
        plain = by_what(candidate)
        return {**plain, "drop": plain["drop"] + worse, "bound": plain["bound"] + worse}

    found = Bench(figures).run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
    skipped = {entry.candidate.title: entry.reason for entry in found.entries if isinstance(entry, Skipped)}
    reason = next(why for title, why in skipped.items() if "50% of the heads" in title)
    assert "25% of the heads" in reason
    assert "did not pass its gate" in reason
    assert not any("50% of the heads" in title for title in titles(found))


def test_what_only_stores_few_bits_is_spared_where_few_bits_compute() -> None:
    found = Bench(by_what).run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
    assert not any(title.startswith(("INT4", "INT2")) for title in titles(found))
    slow = Bench(lambda candidate: {**by_what(candidate), "speedup": 0.8 if candidate.format is Format.INT8 else 1.5})
    searched = slow.run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
    assert any(title.startswith("INT4") for title in titles(searched)), "INT8 gained nothing"


def test_a_drop_by_far_too_large_is_not_tried_by_other_methods() -> None:
    def losing(by: float) -> list[str]:
        def figures(candidate: Candidate) -> Figures:
            worse = {"drop": by, "bound": by + 0.001} if candidate.format is Format.INT8 else {}
            return {**by_what(candidate), **worse}

        found = Bench(figures).run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
        return [title for title in titles(found) if title.startswith("INT8")]

    assert losing(0.05) == ["INT8 SmoothQuant on OpenVINO", "INT8 Dynamic on ONNXRuntime"]
    assert len(losing(0.012)) == 5, "a little too much may be the method's fault"


def test_generating_text_takes_the_fewest_bits_first() -> None:
    spec = OptimizedModelSpec.model_validate(model(task="TextGeneration", optimization={"profile": "Latency"})["spec"])
    table = [
        Support(Backend.OPENVINO, "cpu", frozenset({Task.TEXT_GENERATION}), format_, ())
        for format_ in (Format.INT8, Format.INT4)
    ]
    found = pool(spec, CLASS, operator_settings().toolchain, lambda recipe, facts: [], table)
    assert [item.format for item in found.precisions] == [Format.INT4, Format.INT8]


def test_what_removes_more_and_paid_spares_its_parts() -> None:
    found = Bench(by_what).run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
    skipped = {entry.candidate.title: entry.reason for entry in found.entries if isinstance(entry, Skipped)}
    reason = next(why for title, why in skipped.items() if "25% of the neurons" in title)
    assert "25% of the heads and neurons removed" in reason
    assert not any("of the heads removed" in title for title in titles(found))


def test_size_takes_the_fewest_bits_that_pass() -> None:
    def figures(candidate: Candidate) -> Figures:
        return {**by_what(candidate), "drop": 0.0, "bound": 0.001} if not candidate.steps else by_what(candidate)

    found = Bench(figures).run(POOLS[Profile.SIZE], Profile.SIZE, Budget(max_builds=40))
    assert found.best is not None
    assert found.best.candidate.format is Format.INT2
    on_it = [title for title in titles(found) if title.endswith("OpenVINO")]
    assert not any(title.startswith(("FP16", "None", "INT8")) for title in on_it), "they cannot be smaller"
    failing = Bench(by_what).run(POOLS[Profile.SIZE], Profile.SIZE, Budget(max_builds=40))
    assert failing.best is not None
    assert failing.best.candidate.format is Format.INT8
    assert not any(title.startswith("INT2") for title in titles(failing)), "INT4 lost too much already"


@pytest.mark.parametrize("stage", ["fetch", "baseline", "reference"])
def test_what_fails_before_anything_of_the_candidate_ran_fails_all(stage: str) -> None:
    bench = Bench(lambda candidate: broken(stage))
    found = bench.run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
    assert len(bench.known) == 1
    assert found.best is None


@pytest.mark.parametrize("stage", ["fetch-student", "fetch-teacher-1"])
def test_a_student_or_teacher_that_cannot_be_fetched_fails_the_candidates_that_have_it(stage: str) -> None:
    bench = Bench(lambda candidate: broken(stage) if candidate.steps else by_what(candidate))
    found = bench.run(POOLS[Profile.LATENCY], Profile.LATENCY, Budget(max_builds=40))
    assert len(bench.known) > 1
    assert found.best is not None


def test_a_draft_that_cannot_be_fetched_fails_the_candidates_that_have_it() -> None:
    drafting = {"method": "DraftModel", "draft": {"source": {"package": {"name": "small", "version": "1"}}}}
    goal_of = {"optimization": {"profile": "Latency"}, "runtime": {"speculativeDecoding": drafting}}
    spec = OptimizedModelSpec.model_validate(model(task="TextGeneration", **goal_of)["spec"])
    all_drafted = pool(spec, CLASS, operator_settings().toolchain)
    assert all(candidate.rung.recipe.draft_source for candidate in all_drafted.precisions)

    def figures(candidate: Candidate) -> Figures | Failure:
        return broken("fetch-draft") if candidate.rung.recipe.draft_source else by_what(candidate)

    bench = Bench(figures)
    found = bench.run(all_drafted, Profile.LATENCY, Budget(max_builds=40))
    assert (len(bench.known), found.best) == (1, None), "no other one does without"
    first, *others = all_drafted.precisions
    without = [_without_draft(other) for other in others[::2]]
    some_drafted = replace(all_drafted, precisions=(first, *without, *others[1::2]), chains=())
    found = Bench(figures).run(some_drafted, Profile.LATENCY, Budget(max_builds=40))
    assert found.best is not None
    assert not found.best.candidate.rung.recipe.draft_source
    having_it = [entry for entry in found.entries if entry.candidate.rung.recipe.draft_source]
    assert [entry.candidate for entry in having_it if isinstance(entry, Trial)] == [first]
    reasons = [entry.reason for entry in having_it if isinstance(entry, Skipped)]
    assert f"skipped: it would fail as {first.title} did, whose draft could not be fetched" in reasons


def _without_draft(candidate: Candidate) -> Candidate:
    recipe = candidate.rung.recipe.model_copy(update={"speculative_decoding": None})
    key = build_key(recipe, operator_settings().toolchain, candidate.rung.accelerator)
    rung = replace(candidate.rung, recipe=recipe, key=key, build_name=engine_build_name(key))
    return replace(candidate, rung=rung)


def test_given_blocks_come_first_and_take_part() -> None:
    quantization = {"format": "INT8", "method": "Percentile", "calibration": {"samples": 32}}
    pruning = {"granularity": "Heads", "sparsity": 0.1}
    found = everything(quantization=quantization, pruning=pruning)
    first = found.precisions[0]
    assert first.quantization is not None
    assert first.quantization.method.value == "Percentile"
    assert all(item.quantization is None or item.quantization.calibration.samples == 32 for item in found.precisions)
    assert found.chains[0][0].kind == "pruning"
    extended = found.extended(first, found.chains[0][0])
    assert extended is not None
    assert extended.rung.recipe.pruning is not None
    assert extended.rung.recipe.pruning.sparsity == 0.1
    assert found.extended(extended, found.chains[1][0]) is None, "a recipe holds one pruning block"


def test_candidates_are_only_what_a_builder_has() -> None:
    found = pool(SPEC, CLASS, operator_settings().toolchain)
    assert found.precisions
    assert not any(item.format in (Format.FP8, Format.NVFP4) for item in found.precisions), "not on this class"
    engine = {"backend": "ONNXRuntime"}
    named = OptimizedModelSpec.model_validate(model(optimization={"profile": "Latency"}, engine=engine)["spec"])
    assert {item.backend.value for item in pool(named, CLASS, operator_settings().toolchain).precisions} == {
        "ONNXRuntime"
    }


def test_removals_use_equal_rows_for_every_precision() -> None:
    chains = [chain for chain in POOLS[Profile.LATENCY].chains if chain[0].kind == "layers"]
    found = [POOLS[Profile.LATENCY].extended(base, chains[0][0]) for base in POOLS[Profile.LATENCY].precisions]
    assert len({str(item.rung.recipe.training) for item in found if item is not None}) == 1
    assert len({str(item.rung.recipe.pruning) for item in found if item is not None}) == 1


@pytest.mark.parametrize("profile", list(Profile))
def test_goals_are_ratios_to_the_baseline_measured_beside(profile: Profile) -> None:
    benchmark = evidence("0" * 64, speedup=2.0, size_bytes=30).benchmark
    assert goal(profile, benchmark) == pytest.approx(3.0 if profile is Profile.SIZE else 2.0)
    bare = benchmark.model_copy(update={"measurements": []})
    assert goal(profile, bare) > 0, "a cut termination message keeps the total"


def test_the_status_keeps_the_best_when_there_is_no_room_for_all() -> None:
    spec = {**model()["spec"], "optimization": {"profile": "Latency", "search": {"maxBuilds": 60}}}
    draft = drafted(snapshot(spec), acceptance, class_choice, choice)
    created = [effect for effect in draft.effects if isinstance(effect, Create)]
    assert len(created) == 1
    assert draft.rung_statuses is not None
    assert 1 <= len(draft.rung_statuses) <= RUNGS_MOST
    assert "search 1 of 60 builds, 0 of 240 minutes" in draft.findings["Built"].message


def test_a_verdict_that_failed_never_wins(profile: Profile = Profile.LATENCY) -> None:
    found = Bench(lambda candidate: {"drop": 0.5, "bound": 0.6, "speedup": 9.0, "size_bytes": 1}).run(
        POOLS[profile], profile, Budget(max_builds=30)
    )
    assert found.best is None
    assert all(trial.judged.verdict is Verdict.FAILED for trial in found.trials)
    assert any(isinstance(entry, Trial) for entry in found.entries)
