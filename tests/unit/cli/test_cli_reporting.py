"""From a model's status and its EngineBuilds to the facts of its report."""

from __future__ import annotations

from enginewright_api.engine_build import EngineBuild
from enginewright_api.evidence import Verdict
from enginewright_api.optimization import Profile
from enginewright_api.optimized_model import OptimizedModel
from enginewright_cli.reporting import facts_of_model
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.choice import choice
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.effects import Create
from enginewright_operator.core.judgement import judge_rung
from tests.scenarios.evidence import evidence
from tests.scenarios.models import model
from tests.unit.operator.snapshots import drafted, snapshot

SPEC = {"optimization": {"profile": "Latency", "quantization": {"calibration": {"samples": 16}}}}


def test_candidates_carry_the_figures_of_this_models_evidence_and_the_recipe_as_title() -> None:
    draft = drafted(snapshot(SPEC), acceptance, class_choice, choice)
    manifest = next(effect.manifest for effect in draft.effects if isinstance(effect, Create))
    asked, other = evidence(draft.rungs[0].evidence.digest, speedup=3.5), evidence("e" * 64, drop=0.3, bound=0.4)
    measured = [{"requestDigest": one.request_digest, "quality": one.quality.wire(), "benchmark": one.benchmark.wire()}
                for one in (other, asked)]  # fmt: skip
    status = {"phase": "Succeeded", "evidence": measured, "resources": {"acceleratorSeconds": 12.5}}
    build = EngineBuild.of({**manifest, "status": status})
    assert draft.spec is not None
    judged = judge_rung(draft.rungs[0], build, draft.spec.quality)
    title = draft.rungs[0].title
    rungs = [
        judged.saying(f"{title}: gate passed", rejected=False).status().wire(),
        {"engineBuild": "eb-none", "format": "FP16", "message": "FP16 on OpenVINO: skipped: fewer bits passed"},
    ]
    condition = {
        "type": "Built", "status": "Unknown", "reason": "Building", "message": "search 2 of 8 builds",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    }  # fmt: skip
    given = OptimizedModel.of({**model(**SPEC), "status": {"rungs": rungs, "conditions": [condition]}})
    facts = facts_of_model(given, {build.metadata.name: build})
    assert (facts.profile, facts.served, facts.sentence) == (Profile.LATENCY, False, "search 2 of 8 builds")
    first, second = facts.candidates
    assert (first.title, first.message, first.verdict, first.seconds) == (title, "gate passed", Verdict.PASSED, 12.5)
    assert first.benchmark is not None
    assert first.benchmark.speedup == 3.5, "not what another model measured"
    assert first.quality is not None
    assert first.quality.max_drop == draft.spec.quality.max_drop
    assert (second.title, second.message) == ("FP16 on OpenVINO", "skipped: fewer bits passed")
    assert (second.seconds, second.benchmark) == (None, None)
    assert facts.front() == {first.engine_build}
