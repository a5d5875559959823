"""Rows of a model whose spec names none: what its task can be judged on."""

from __future__ import annotations

import pytest

from enginewright_api.support import BUILTIN_DATASETS
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import class_choice
from tests.unit.operator.snapshots import drafted, snapshot

OPTIMIZATION = {
    "quantization": {"format": "INT8"},
    "pruning": {"granularity": "Heads", "criterion": "Gradient"},
    "distillation": {"student": {"layers": 3}},
}


@pytest.mark.parametrize(("task", "name"), [("Classification", "reviews-en"), ("Embedding", "news-en")])
def test_a_task_without_rows_gets_those_that_judge_it(task: str, name: str) -> None:
    draft = drafted(snapshot({"task": task, "optimization": OPTIMIZATION}), acceptance, class_choice)
    accepted = draft.findings["Accepted"]
    assert accepted.holds, accepted.message
    recipe, evidence = draft.rungs[0].recipe, draft.rungs[0].evidence
    assert recipe.quantization is not None
    assert recipe.distillation is not None
    found = (evidence.dataset, recipe.quantization.calibration.dataset, recipe.distillation.dataset, recipe.training)
    assert {dataset.builtin.name for dataset in found if dataset is not None and dataset.builtin is not None} == {name}
    assert task in {judged.value for judged in BUILTIN_DATASETS[name]}
