"""A model that labels words from weights to gate, through the real server: every word keeps its own answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from benchmarks.models.tagger import scores, trained_tagger
from enginewright_api.evidence import Verdict
from enginewright_api.optimization import Distillation, Pruning, Quantization
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Task, Toolchain, build_key
from enginewright_api.serving_spec import Backend
from enginewright_api.source import BuiltinDataset, Dataset
from enginewright_builder.compression.batches import NO_LABEL, batches
from enginewright_builder.compression.distill import distill
from enginewright_builder.compression.imitation import label_loss
from enginewright_builder.compression.prune import prune
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import quiet
from enginewright_builder.datasets import valence
from enginewright_builder.datasets.draw import Drawn, draw
from enginewright_builder.datasets.judged import judged
from enginewright_builder.datasets.rows import Row
from enginewright_builder.description import describe
from enginewright_builder.gate.quality import compare
from enginewright_builder.places import Places
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.inputs import feeds
from tests.builder.building import OPENVINO_INT8, Builder
from tests.builder.tiny import save_tiny

pytestmark = pytest.mark.timeout(900)
TOKENS, ROWS = 32, 128
BUILTIN = {"builtin": {"name": "valence-en"}}
PACKAGED = {"package": {"name": "tiny", "version": "0"}}


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
        return compare(engine, before, rows.rows, labels=valence.LABELS, request=evidence, dataset="t").verdict

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


MIXED = {"format": "Mixed", "mixed": {"averageBits": 6, "formats": ["INT8", "INT4"]}}


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        (Backend.ONNX_RUNTIME, {"format": "None"}),
        (Backend.ONNX_RUNTIME, {"format": "INT8", "method": "MinMax"}),
        (Backend.ONNX_RUNTIME, MIXED | {"method": "MinMax"}),
        (Backend.OPENVINO, MIXED | {"method": "GPTQ"}),
    ],
    ids=lambda value: value.value if isinstance(value, Backend) else value["format"],
)
def test_graphs_of_tokens_are_quantised_as_those_of_texts_are(
    backend: Backend, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Texts of different lengths have answers of different shapes, which every measurement has to bear."""
    source = save_tiny("roberta-tokens", tmp_path / "source")
    recipe = Recipe.model_validate(
        {"source": PACKAGED, "task": "TokenClassification", "backend": backend.value, "limits": {"maxInputTokens": 32}}
    )
    described = describe(inspect(source), recipe, backend)
    texts = [" ".join(f"w{2 + (7 * row + place) % 97}" for place in range(4 + 3 * row)) for row in range(8)]
    fed = list(feeds(texts, source, described, max_tokens=32))
    graph, made = tmp_path / "graph", tmp_path / "made"
    graph.mkdir()
    made.mkdir()
    runner = backend_of(backend)
    runner.export(source, described, graph)
    runner.quantize(graph, described, Quantization.model_validate(settings), fed, made)
    model = load_model(source, Task.TOKEN_CLASSIFICATION)
    agreed = []
    for feed, answer in zip(fed, runner.answers(made, described, fed, 1), strict=True):
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(values) for name, values in feed.items()}).logits.numpy()
        assert answer.shape == expected.shape == (1, feed["input_ids"].shape[1], 5)
        agreed += (answer.argmax(-1) == expected.argmax(-1)).flatten().tolist()
    assert np.mean(agreed) > (0.999 if settings["format"] == "None" else 0.9)


def tagged_rows(count: int) -> list[Row]:
    """A word's class follows from the word."""
    words = [[2 + (13 * row + 5 * place) % 97 for place in range(6)] for row in range(count)]
    return [
        Row(" ".join(f"w{word}" for word in row), word_labels=tuple(str(word % 5) for word in row)) for row in words
    ]


def loss_of(folder: Path, tokenizer: Path) -> float:
    batch = next(batches(tagged_rows(64), tokenizer, max_tokens=16, batch_size=64, seed=3))
    with torch.no_grad():
        answered = load_model(folder, Task.TOKEN_CLASSIFICATION)(**batch.inputs())
    found = label_loss(answered, Task.TOKEN_CLASSIFICATION, batch)
    assert found is not None
    return float(found)


def test_labels_of_words_teach_a_student_and_say_which_neurons_count(tmp_path: Path) -> None:
    """What keeps the labels' loss low is chosen by its gradient; by their size alone other neurons would stay."""
    source, taught = save_tiny("roberta-tokens", tmp_path / "source"), tmp_path / "taught"
    settings = Distillation.model_validate({"student": {"layers": 2}, "alpha": 0.0, "maxSteps": 150})
    told = distill(source, [source], Task.TOKEN_CLASSIFICATION, settings, tagged_rows(96), taught, quiet)
    assert told["labelledRows"] == 96
    losses = {"before": loss_of(source, source), "taught": loss_of(taught, source)}
    for criterion in ("Gradient", "Magnitude"):
        wanted = Pruning.model_validate({"granularity": "Neurons", "sparsity": 0.5, "criterion": criterion})
        prune(taught, Task.TOKEN_CLASSIFICATION, wanted, tagged_rows(96), tmp_path / criterion, quiet)
        losses[criterion] = loss_of(tmp_path / criterion, source)
    assert losses["taught"] < 0.7 * losses["before"], losses
    assert losses["Gradient"] < losses["Magnitude"], losses


def test_labels_go_to_the_first_token_of_each_word(checkpoint: Path) -> None:
    rows = [Row("unbelievably good stuff", word_labels=("O", "Positive", "0")), Row("bad", word_labels=("Negative",))]
    batch = next(batches(rows, checkpoint, max_tokens=16, batch_size=2, seed=0))
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    found = {}
    assert batch.labels is not None
    assert batch.text_mask is not None
    for ids, labels, own in zip(batch.input_ids, batch.labels, batch.text_mask, strict=True):
        tokens = [tokenizer.id_to_token(token) for token in ids.tolist()]
        assert [token for token, mine in zip(tokens, own, strict=True) if not mine][:2] == ["[CLS]", "[SEP]"]
        found |= dict(zip(tokens, labels.tolist(), strict=True))
    assert [found.pop(word) for word in ("good", "bad", "stuff")] == [2, 1, 0]
    assert sorted(found.values()) == [NO_LABEL] * (len(found) - 1) + [0], "of a word in pieces the first counts"
    assert found["un"] == 0
