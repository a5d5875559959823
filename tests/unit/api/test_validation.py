"""Our own validation against the shared table of objects."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.validation import admit, problems, with_defaults
from tests.objects.table import (
    DEFAULTED_NULLS,
    IMMUTABLE,
    NULLS,
    RIGHT,
    UNKNOWN_FIELDS,
    WRONG,
    Object,
    Wrong,
    build,
    model,
)


@pytest.mark.parametrize("wrong", WRONG + UNKNOWN_FIELDS, ids=lambda wrong: wrong.id)
def test_wrong_objects_are_refused_naming_the_field(wrong: Wrong) -> None:
    found = "; ".join(problems(wrong.object))
    assert found
    for word in wrong.says:
        assert word in found


@pytest.mark.parametrize("wrong", NULLS, ids=lambda wrong: wrong.id)
def test_a_null_without_a_default_is_told_in_one_sentence(wrong: Wrong) -> None:
    (sentence,) = problems(wrong.object)
    for word in ("null", *wrong.says):
        assert word in sentence


@pytest.mark.parametrize("item", DEFAULTED_NULLS, ids=lambda item: str(item["metadata"]["name"]))
def test_a_null_with_a_default_stands_for_it(item: Object) -> None:
    admitted = admit(item)
    assert "None" not in repr(admitted)
    assert admitted == admit(_without_nulls(item))


def test_nulls_do_not_hide_what_else_is_wrong() -> None:
    assert problems(model(optimization={"quantization": None}, optimisation=None, replicas=-1)) == [
        "spec.optimization.quantization: is null; give it a value or leave it out",
        "spec.replicas: must be greater than or equal to 0, got -1",
        "spec.optimisation: unknown field; did you mean optimization?",
    ]


def test_nulls_of_the_envelope_are_as_good_as_left_out() -> None:
    item = model()
    assert admit(item | {"metadata": {"name": "a", "labels": None}, "status": None}) == admit(item)
    assert problems(item | {"metadata": {"name": None}}) == ["metadata.name: is required"]
    assert problems(item | {"metadata": None}) == ["metadata: is required"]
    assert problems(item | {"spec": None}) == ["spec: is required"]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("right", RIGHT, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_right_objects_are_admitted(right: Object) -> None:
    assert problems(right) == []


@pytest.mark.parametrize("wrong", IMMUTABLE, ids=lambda wrong: wrong.id)
def test_engine_builds_are_immutable(wrong: Wrong) -> None:
    assert problems(wrong.object) == []
    found = "; ".join(problems(wrong.object, old=build()))
    for word in wrong.says:
        assert word in found


def test_misspelt_fields_get_a_suggestion() -> None:
    (sentence,) = problems(model(optimisation={}))
    assert sentence == "spec.optimisation: unknown field; did you mean optimization?"


def test_admit_fills_defaults_and_names_every_problem() -> None:
    admitted = admit(model())
    assert admitted["spec"]["quality"] == {"metric": "Auto", "maxDrop": 0.01, "confidence": 0.95, "samples": 512}
    with pytest.raises(DeterministicError, match=r"'a' is invalid: .*method.*fallbacks"):
        admit(model(optimization={"quantization": {"format": "FP16", "method": "MinMax"}, "fallbacks": [{}]}))


def test_defaults_leave_what_is_given_alone() -> None:
    given = model(engine={"limits": {"maxBatchSize": 4}}, replicas=7)
    filled = with_defaults(given)
    assert filled["spec"]["engine"] == {
        "backend": "Auto",
        "limits": {"maxBatchSize": 4, "maxInputTokens": 512, "maxOutputTokens": 512},
    }
    assert filled["spec"]["replicas"] == 7
    assert "replicas" not in model()["spec"]


def test_defaults_reach_into_optional_objects_and_lists() -> None:
    item = model(
        quality={"dataset": {"configMap": {"name": "rows"}}},
        optimization={"fallbacks": [{"pruning": {"granularity": "Heads"}}]},
    )
    spec = with_defaults(item)["spec"]
    assert spec["quality"]["dataset"]["columns"] == {"text": "text"}
    assert spec["optimization"]["fallbacks"][0]["pruning"]["schedule"] == {"type": "OneShot", "steps": 1}


def test_another_kind_is_named() -> None:
    assert problems({"apiVersion": "v1", "kind": "Pod"}) == [
        "kind: v1 Pod is not one of enginewright.io/v1alpha1 OptimizedModel, EngineBuild, AcceleratorClass"
    ]
