"""Whole builds around training: a distilled INT8 engine, and a classifier that the gate judges by its labels."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.models.classifier import accuracy, trained_classifier
from benchmarks.models.tiny_llama import held_out_texts, perplexity, trained_llama
from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import Verdict
from enginewright_api.recipe import BuildRequest, Recipe, build_key
from enginewright_builder.datasets import news, reviews
from enginewright_store import open_store
from enginewright_store.artifact import read_manifest
from tests.builder.building import OPENVINO_INT8, PACKAGE, Builder, request, states

pytestmark = pytest.mark.timeout(900)
REVIEWS = {"builtin": {"name": "reviews-en"}}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    root = tmp_path_factory.mktemp("machine")
    return Builder(root, root / "store")


@pytest.fixture(scope="module")
def classifier() -> Path:
    try:
        return trained_classifier(steps=12)
    except DeterministicError as error:
        pytest.skip(error.message)


def changed(wanted: BuildRequest, **blocks: Any) -> BuildRequest:
    """The request with other blocks in its recipe."""
    recipe = Recipe.model_validate({**wanted.recipe.wire(), **blocks})
    key = build_key(recipe, wanted.toolchain, wanted.accelerator)
    return wanted.model_copy(update={"recipe": recipe, "key": key})


def second_teacher(folder: Path) -> Path:
    """A checkpoint that answers a little otherwise than the source."""
    package = importlib.metadata.distribution(PACKAGE)
    shutil.copytree(str(package.locate_file(f"{PACKAGE.replace('-', '_')}/model")), folder)
    tensors = load_file(folder / "model.safetensors")
    noise = np.random.default_rng(0)
    for name in (name for name in tensors if name.endswith("output.dense.weight")):
        tensors[name] += noise.normal(scale=0.01, size=tensors[name].shape).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_student_of_two_teachers_becomes_an_int8_engine(machine: Builder, tmp_path: Path) -> None:
    # Short rows, so that a step takes little.
    (tmp_path / "rows.txt").write_text("\n".join(row.text[:60] for row in news.calibration_rows()[:96]))
    wanted = changed(
        request("OpenVINO", OPENVINO_INT8, maxDrop=0.6),
        distillation={
            "student": {"layers": 3},
            "maxSteps": 6,
            "teachers": ["self", second_teacher(tmp_path / "second").as_uri()],
        },
        training={"objectStore": {"uri": (tmp_path / "rows.txt").as_uri()}},
    )
    outcome, reports, code = machine.run(wanted)
    assert (code, outcome.failure) == (0, None)
    order = list(dict.fromkeys(report.name for report in reports if report.name != "reference"))
    assert order.index("distil") < order.index("export") < order.index("quantize")
    assert set(states(reports).values()) == {"Succeeded"}
    told = [report.message for report in reports if report.name == "distil"]
    assert "22.7 M → 17.4 M parameters" in told[-1]
    assert any("of 6, loss" in message for message in told)
    kept = [json.loads(file.read_bytes()) for file in (machine.work / "stages").glob("*/stage.json")]
    assert sorted(stage["name"] for stage in kept if stage["name"].startswith("fetch")) == ["fetch", "fetch-teacher-1"]
    assert [stage["result"]["teachers"] for stage in kept if stage["name"] == "distil"] == [2]
    digests = {stage["name"]: stage["result"].get("sourceDigest") for stage in kept}
    found = read_manifest(open_store(machine.store.as_uri()), outcome.key)
    assert found is not None
    predicate: Any = found[0].provenance["predicate"]
    listed = {item["name"]: item for item in predicate["buildDefinition"]["resolvedDependencies"]}
    assert list(listed) == ["source", "training-rows", "teacher-1", "calibration-rows", "toolchain"]
    teacher = {"uri": (tmp_path / "second").as_uri(), "digest": {"sha256": digests["fetch-teacher-1"]}}
    assert listed["teacher-1"] == {"name": "teacher-1", **teacher}
    assert outcome.evidence is not None
    assert 0.5 < outcome.evidence.quality.optimized < 0.999
    # 17.4 M parameters of 8 bits; all six layers would be 22.7 MB.
    assert 17e6 < outcome.evidence.benchmark.size_bytes < 19e6


def test_a_classifier_is_judged_by_people_s_labels(machine: Builder, classifier: Path) -> None:
    wanted = changed(
        request(
            "OpenVINO",
            {**OPENVINO_INT8, "calibration": {**OPENVINO_INT8["calibration"], "dataset": REVIEWS}},  # type: ignore[dict-item]
            source={"objectStore": {"uri": classifier.as_uri()}},
            dataset=REVIEWS,
            metric="Accuracy",
            samples=300,
            maxDrop=0.06,
        ),
        task="Classification",
    )
    outcome, _, code = machine.run(wanted)
    assert (code, outcome.failure) == (0, None)
    assert outcome.evidence is not None
    quality = outcome.evidence.quality
    assert quality.verdict is Verdict.PASSED
    assert quality.baseline > 0.65
    assert abs(quality.baseline - quality.optimized) < 0.06
    assert outcome.evidence.benchmark.size_bytes < outcome.evidence.benchmark.baseline_size_bytes / 3


def test_the_small_classifier_learnt(classifier: Path) -> None:
    assert accuracy(classifier, reviews.evaluation_rows()[::20]) > 0.65
    labels = json.loads((classifier / "config.json").read_text())["id2label"]
    assert labels == {"0": "negative", "1": "positive"}


def test_the_small_language_model_learnt() -> None:
    try:
        learnt, before = trained_llama(steps=20), trained_llama(steps=0)
    except DeterministicError as error:
        pytest.skip(error.message)
    texts = held_out_texts(40)
    assert perplexity(learnt, texts) < 0.5 * perplexity(before, texts)
