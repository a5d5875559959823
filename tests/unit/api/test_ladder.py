"""Rungs, verdicts and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_api.evidence import QualityEvidence, Verdict, judge
from enginewright_api.identity import canonical_json, digest_of
from enginewright_api.optimization import Optimization
from enginewright_api.recipe import AcceleratorFacts, Recipe, Toolchain, build_key
from tests.objects.table import build


def _evidence(**changes: object) -> QualityEvidence:
    values: dict[str, object] = {
        "metric": "CosineSimilarity", "baseline": 1.0, "optimized": 0.99, "drop": 0.01, "dropUpperBound": 0.012,
        "maxDrop": 0.01, "confidence": 0.95, "samples": 100, "verdict": "Failed", "dataset": "news-en",
        "bounds": [0.01 + 0.0001 * step for step in range(50)],
    }  # fmt: skip
    return QualityEvidence.model_validate(values | changes)


@pytest.mark.parametrize(
    ("max_drop", "confidence", "verdict"),
    [
        (0.02, 0.95, Verdict.PASSED),
        (0.011, 0.95, Verdict.INCONCLUSIVE),
        (0.005, 0.95, Verdict.FAILED),
        (0.0101, 0.50, Verdict.PASSED),
        (0.0148, 0.99, Verdict.INCONCLUSIVE),
        (0.0149, 0.99, Verdict.PASSED),
    ],
)
def test_another_budget_is_judged_from_stored_bounds(max_drop: float, confidence: float, verdict: Verdict) -> None:
    assert judge(_evidence(), max_drop=max_drop, confidence=confidence) is verdict


@given(st.floats(0, 0.1), st.floats(0.5, 0.99))
def test_more_confidence_never_turns_a_failure_into_a_pass(max_drop: float, confidence: float) -> None:
    evidence = _evidence(dropUpperBound=0.0145, confidence=0.95)
    strict = judge(evidence, max_drop=max_drop, confidence=min(confidence + 0.05, 0.99))
    if strict is Verdict.PASSED and confidence + 0.05 <= 0.99:
        assert judge(evidence, max_drop=max_drop, confidence=confidence) is Verdict.PASSED


def test_a_rung_replaces_blocks_and_keeps_calibration() -> None:
    optimization = Optimization.model_validate(
        {
            "lowRank": {"energy": 0.9},
            "quantization": {"format": "INT8", "calibration": {"samples": 99}},
            "fallbacks": [{"quantization": {"format": "FP16"}}, {"without": ["LowRank", "Quantization"]}],
        }
    )
    first, second, third = optimization.rungs()
    assert first.quantization is not None
    assert first.quantization.format == "INT8"
    assert second.quantization is not None
    assert (second.quantization.format, second.quantization.calibration.samples) == ("FP16", 99)
    assert second.low_rank == first.low_rank
    assert (third.low_rank, third.quantization) == (None, None)


def test_key_follows_from_what_the_engine_depends_on_and_nothing_else() -> None:
    spec = build()["spec"]
    recipe = Recipe.model_validate(spec["recipe"])
    facts = AcceleratorFacts.model_validate(spec["accelerator"])
    toolchain = Toolchain.model_validate(spec["toolchain"])
    key = build_key(recipe, toolchain, facts)
    same = facts.model_copy(update={"accelerator_class": "other-name", "memory_gib": 1.0})
    assert build_key(recipe, toolchain.model_copy(update={"image": "elsewhere/builder"}), same) == key
    assert build_key(recipe, toolchain.model_copy(update={"digest": "sha256:0"}), facts) != key
    assert build_key(recipe, toolchain, facts.model_copy(update={"architecture": "aarch64"})) != key
    assert (
        build_key(
            recipe.model_copy(update={"limits": recipe.limits.model_copy(update={"max_batch_size": 1})}),
            toolchain,
            facts,
        )
        != key
    )


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_digest_does_not_depend_on_order(value: dict[str, object]) -> None:
    assert digest_of(dict(reversed(list(value.items())))) == digest_of(value)
    assert b" :" not in canonical_json({"a": 1})
