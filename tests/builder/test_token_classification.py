"""A model that labels words from weights to gate, through the real server: every word keeps its own answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.models.tagger import scores, trained_tagger
from enginewright_api.evidence import Verdict
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Toolchain, build_key
from enginewright_api.source import BuiltinDataset, Dataset
from enginewright_builder.datasets import valence
from enginewright_builder.datasets.draw import Drawn, draw
from enginewright_builder.datasets.judged import judged
from enginewright_builder.gate.quality import compare_words
from enginewright_builder.places import Places
from tests.builder.building import OPENVINO_INT8, Builder

pytestmark = pytest.mark.timeout(900)
TOKENS, ROWS = 32, 128
BUILTIN = {"builtin": {"name": "valence-en"}}


def request(checkpoint: Path, dataset: dict[str, Any], **recipe: Any) -> BuildRequest:
    resolved = Recipe.model_validate(
        {
            "source": {"objectStore": {"uri": checkpoint.as_uri()}},
            "task": "TokenClassification",
            "backend": "OpenVINO",
            "limits": {"maxBatchSize": 8, "maxInputTokens": TOKENS},
            "quantization": OPENVINO_INT8 | {"calibration": {"samples": 32, "maxTokens": TOKENS}},
            **recipe,
        }
    )
    toolchain = Toolchain(image="local", digest="d" * 64)
    accelerator = AcceleratorFacts(accelerator_class="cpu", vendor="cpu", architecture="x86_64-avx512-bf16")
    return BuildRequest.model_validate(
        {
            "key": build_key(resolved, toolchain, accelerator),
            "recipe": resolved.wire(),
            "toolchain": toolchain.wire(),
            "accelerator": accelerator.wire(),
            "evidence": {"dataset": dataset, "metric": "F1", "maxDrop": 0.1, "confidence": 0.9, "samples": ROWS},
        }
    )


def drawn(checkpoint: Path, folder: Path) -> Drawn:
    """The rows that the gate judges first."""
    rows = draw(
        Dataset(builtin=BuiltinDataset(name="valence-en")), "evaluation", Places(folder, folder, folder, folder)
    )
    return judged(rows, valence.LABELS, checkpoint, max_tokens=TOKENS).first(ROWS)


def answers(builder: Builder, stage: str) -> Any:
    """Of the first look."""
    found = [
        np.load(record.parent / "files" / "answers.npy")
        for record in builder.work.glob("stages/*/stage.json")
        if json.loads(record.read_text())["name"] == stage
    ]
    return min(found, key=len)


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return trained_tagger(steps=0)


def test_an_int8_engine_is_built_judged_by_f1_and_served(checkpoint: Path, tmp_path: Path) -> None:
    builder = Builder(tmp_path / "machine", tmp_path / "store")
    wanted = request(checkpoint, BUILTIN)
    outcome, reports, code = builder.run(wanted)
    assert (code, outcome.failure) == (0, None)
    assert outcome.evidence is not None
    quality, benchmark = outcome.evidence.quality, outcome.evidence.benchmark
    assert (quality.metric.value, quality.verdict) == ("F1", Verdict.PASSED)
    assert 0.5 < quality.baseline < 0.9
    assert quality.samples >= ROWS
    assert benchmark.size_bytes < benchmark.baseline_size_bytes / 3
    assert {(one.batch_size, one.tokens) for one in benchmark.measurements} == {(1, 16), (1, TOKENS), (8, TOKENS)}
    told = {report.name: report.message for report in reports}
    assert "32 rows of valence-en" in told["quantize"]

    rows = drawn(checkpoint, tmp_path)
    expected = scores(checkpoint, rows.rows, max_tokens=TOKENS)
    before, after = answers(builder, "reference"), answers(builder, "verify")
    assert before.shape == after.shape == expected.shape == (sum(len(row.words) for row in rows.rows), 3)
    assert np.abs(before - expected).max() < 1e-3, "the baseline's words have the scores of the model's tokens"
    assert 0 < np.abs(after - expected).max() < np.ptp(expected), "INT8 is close, and not the same"
    assert (after.argmax(1) == expected.argmax(1)).mean() > 0.97

    def verdict(engine: Any) -> Verdict:
        evidence = wanted.evidence
        return compare_words(engine, before, rows.rows, labels=valence.LABELS, request=evidence, dataset="t").verdict

    assert verdict(after[:, [0, 2, 1]]) is Verdict.FAILED, "an engine that mixes the labels up"
    assert verdict(np.roll(after, 1, axis=0)) is Verdict.FAILED, "an engine that is one word late"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"tokens": ["good", "film"], "tags": ["Positive", "B-ORG"]}, "line 2: label 'B-ORG' is none of the model's"),
        ({"tokens": ["good", "film"], "tags": [2]}, "line 2: column 'tokens' has 2 words and column 'tags' 1 labels"),
    ],
    ids=["unknown label", "lengths"],
)
def test_rows_that_cannot_be_judged_end_the_build_before_it_works(
    checkpoint: Path, tmp_path: Path, row: dict[str, Any], says: str
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"tokens": ["bad"], "tags": [1]}) + "\n" + json.dumps(row) + "\n")
    dataset = {"objectStore": {"uri": data.as_uri()}, "columns": {"text": "tokens", "label": "tags"}}
    outcome, reports, _ = Builder(tmp_path / "machine", tmp_path / "store").run(request(checkpoint, dataset))
    assert outcome.failure is not None
    assert outcome.failure.reason == "InvalidDataset"
    assert says in outcome.failure.message
    assert not {"export", "reference"} & {report.name for report in reports}
