"""A reranker from weights to gate, through the real server: pairs stay pairs on every stretch of the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from benchmarks.models.reranker import trained_reranker
from enginewright_api.evidence import Verdict
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Task, Toolchain, build_key
from enginewright_api.source import BuiltinDataset, Dataset
from enginewright_builder.compression.structure import load_model
from enginewright_builder.datasets.draw import draw
from enginewright_builder.places import Places
from enginewright_store import open_store
from enginewright_store.artifact import read_manifest
from tests.builder.building import OPENVINO_INT8, Builder

pytestmark = pytest.mark.timeout(900)
TOKENS, ROWS = 96, 64


def request(checkpoint: Path) -> BuildRequest:
    recipe = Recipe.model_validate(
        {
            "source": {"objectStore": {"uri": checkpoint.as_uri()}},
            "task": "Reranking",
            "backend": "OpenVINO",
            "limits": {"maxBatchSize": 8, "maxInputTokens": TOKENS},
            "quantization": OPENVINO_INT8 | {"calibration": {"samples": 32, "maxTokens": TOKENS}},
        }
    )
    toolchain = Toolchain(image="local", digest="d" * 64)
    accelerator = AcceleratorFacts(accelerator_class="cpu", vendor="cpu", architecture="x86_64-avx512-bf16")
    return BuildRequest.model_validate(
        {
            "key": build_key(recipe, toolchain, accelerator),
            "recipe": recipe.wire(),
            "toolchain": toolchain.wire(),
            "accelerator": accelerator.wire(),
            "evidence": {
                "dataset": {"builtin": {"name": "similarity-en"}},
                "metric": "NDCG",
                "maxDrop": 0.5,
                "confidence": 0.9,
                "samples": ROWS,
            },
        }
    )


def eager(checkpoint: Path, places: Places) -> Any:
    """Scores of the rows that the gate judges, straight from PyTorch [rows, 1]."""
    dataset = Dataset(builtin=BuiltinDataset(name="similarity-en"))
    rows = draw(dataset, "evaluation", places).by_query().first(ROWS).rows
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)
    model = load_model(checkpoint, Task.RERANKING)
    found = []
    for row in rows:
        encoding = tokenizer.encode(row.text, row.text_pair)
        columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        names = ("input_ids", "attention_mask", "token_type_ids")
        with torch.no_grad():
            given = {name: torch.tensor([values]) for name, values in zip(names, columns, strict=True)}
            found.append(model(**given).logits.numpy())
    return np.concatenate(found)


def answers(builder: Builder, stage: str) -> Any:
    (folder,) = [
        record.parent
        for record in builder.work.glob("stages/*/stage.json")
        if json.loads(record.read_text())["name"] == stage
    ][-1:]
    return np.load(folder / "files" / "answers.npy")


def test_an_int8_reranker_is_built_judged_by_ndcg_and_served(tmp_path: Path) -> None:
    checkpoint = trained_reranker(steps=2)
    builder = Builder(tmp_path / "machine", tmp_path / "store")
    wanted = request(checkpoint)
    outcome, reports, code = builder.run(wanted)
    assert (code, outcome.failure) == (0, None)
    assert outcome.evidence is not None
    quality, benchmark = outcome.evidence.quality, outcome.evidence.benchmark
    assert quality.metric.value == "NDCG"
    assert quality.verdict is Verdict.PASSED
    assert 0.3 < quality.baseline < 1.0
    assert benchmark.size_bytes < benchmark.baseline_size_bytes / 3
    assert {(one.batch_size, one.tokens) for one in benchmark.measurements} == {(1, 16), (1, TOKENS), (8, TOKENS)}
    expected = eager(checkpoint, Places(builder.work, tmp_path, tmp_path, tmp_path))
    before, after = answers(builder, "reference"), answers(builder, "verify")
    first = min(len(before), ROWS)
    assert np.abs(before[:first] - expected[:first]).max() < 1e-3, "the baseline reads both texts as the model does"
    spread = float(np.ptp(expected))
    assert 0 < np.abs(after[:first] - expected[:first]).max() < 0.3 * spread, "INT8 is close, and not the same"
    found = read_manifest(open_store(builder.store.as_uri()), outcome.key)
    assert found is not None
    told = {report.name: report.message for report in reports}
    assert "32 rows of similarity-en" in told["quantize"]
