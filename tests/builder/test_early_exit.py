"""Early exit on a classifier that learnt something: who leaves, what it saves, and what the answers lose."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.models.classifier import trained_classifier
from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription, ExitPart
from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import Verdict
from enginewright_api.identity import canonical_json
from enginewright_api.optimization import Quantization
from enginewright_api.outcome import BuildOutcome
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Task, Toolchain, build_key
from enginewright_api.serving_spec import Backend
from enginewright_builder.compression.structure import load_model
from enginewright_builder.datasets import reviews
from enginewright_builder.datasets.rows import Row
from enginewright_builder.description import describe_engine
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_for
from enginewright_builder.toolchain.inputs import feeds
from enginewright_serving.admit import Admission, admit
from enginewright_serving.node import cpu_level
from enginewright_serving.repository import engine_folder
from enginewright_serving.triton.exiting_runner import ExitingRunner
from enginewright_serving.triton.runner import load_runner
from enginewright_serving.triton.text_encoder import TextEncoder
from tests.builder.building import OPENVINO_INT8, Builder

pytestmark = pytest.mark.timeout(900)
CONFIDENCE = 0.9
ROWS, TOKENS = 384, 48


def rows(judged: Sequence[Row], count: int) -> list[Row]:
    return sorted(judged, key=lambda row: row.text[::-1])[:count]


@cache
def texts() -> list[str]:
    """Of rows that nothing learnt from."""
    return [row.text for row in rows(reviews.evaluation_rows(), 64)]


def recipe(backend: str, **changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "source": {"objectStore": {"uri": "file:///unused"}},
            "task": "Classification",
            "backend": backend,
            "limits": {"maxBatchSize": 16, "maxInputTokens": TOKENS},
            "earlyExit": {"confidence": CONFIDENCE},
        }
        | changes
    )


@pytest.fixture(scope="module")
def classifier() -> Path:
    try:
        return trained_classifier(steps=12)
    except DeterministicError as error:
        pytest.skip(error.message)


@dataclass(frozen=True)
class Built:
    """One whole build with INT8, by the builder's own process."""

    builder: Builder
    outcome: BuildOutcome
    messages: dict[str, str]

    def stage(self, name: str) -> tuple[Path, dict[str, Any]]:
        """Files and result of a stage."""
        for record in self.builder.work.glob("stages/*/stage.json"):
            found = json.loads(record.read_text())
            if found["name"] == name:
                return record.parent / "files", found["result"]
        raise AssertionError(f"no stage {name}")


@pytest.fixture(scope="module")
def built(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    (folder / "rows.txt").write_text(
        "\n".join(" ".join(row.text.split()) for row in rows(reviews.calibration_rows(), ROWS))
    )
    wanted = recipe(
        "OpenVINO",
        source={"objectStore": {"uri": classifier.as_uri()}},
        training={"objectStore": {"uri": (folder / "rows.txt").as_uri()}},
        limits={"maxBatchSize": 4, "maxInputTokens": TOKENS},
        quantization=OPENVINO_INT8 | {"calibration": {"samples": 16, "maxTokens": TOKENS}},
    )
    builder = Builder(folder / "machine", folder / "store")
    outcome, reports, code = builder.run(request(wanted))
    assert (code, outcome.failure) == (0, None)
    return Built(builder, outcome, {report.name: report.message for report in reports})


@pytest.fixture(scope="module")
def expected(classifier: Path) -> Any:
    """The whole model's scores of the texts, straight from PyTorch."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(classifier / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)
    model = load_model(classifier, Task.CLASSIFICATION)
    with torch.no_grad():
        each = [model(torch.tensor([tokenizer.encode(text).ids])).logits for text in texts()]
    return torch.cat(each).numpy()


@pytest.fixture(scope="module", params=["OpenVINO", "ONNXRuntime"])
def plain(request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine of one backend in float32."""
    checkpoint, _ = built.stage("exit")
    graph = built.stage("export")[0] if request.param == "OpenVINO" else None
    return engine(checkpoint, tmp_path_factory.mktemp("engines"), recipe(request.param), graph)


def engine(checkpoint: Path, folder: Path, wanted: Recipe, graph: Path | None) -> Path:
    """An engine folder as the builder writes it; the graph is exported into it when none is given."""
    described = describe_engine(inspect(checkpoint), wanted)
    if graph is None:
        graph = folder / "graph"
        graph.mkdir()
        backend_for(described).export(checkpoint, described, graph)
    (folder / "tokenizer").mkdir()
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(checkpoint / name, folder / "tokenizer" / name)
    return compiled(graph, described, folder)


def compiled(graph: Path, described: EngineDescription, folder: Path) -> Path:
    (folder / "engine").mkdir()
    backend_for(described).compile(graph, described, folder / "engine")
    (folder / ENGINE_DESCRIPTION).write_bytes(canonical_json(described.wire()))
    return folder


def description_of(folder: Path) -> EngineDescription:
    return EngineDescription.model_validate_json((folder / ENGINE_DESCRIPTION).read_bytes())


def encoder(folder: Path, *, threshold: float | None = None) -> tuple[TextEncoder, Any]:
    """As the server loads an engine folder; another threshold than the engine's where one is given."""
    from tokenizers import Tokenizer

    described = description_of(folder)
    if threshold is not None:
        assert described.early_exit is not None
        point = described.early_exit.model_copy(update={"threshold": threshold})
        described = described.model_copy(update={"early_exit": point})
    runner = load_runner(folder, described, 2)
    return TextEncoder(described, Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json")), runner), runner


def agreement(found: Any, expected: Any) -> float:
    return float((found.argmax(1) == expected.argmax(1)).mean())


def test_an_exit_saves_operations_and_keeps_its_promise_on_rows_not_learnt_from(built: Built, classifier: Path) -> None:
    checkpoint, told = built.stage("exit")
    assert told["heldOutRows"] == ROWS / 3
    assert 0.1 < told["exitShare"] <= 1
    assert told["exitAgreement"] >= CONFIDENCE
    assert 1 <= told["exitLayer"] < told["layers"] == 6
    passed = told["exitLayer"] + (1 - told["exitShare"]) * (6 - told["exitLayer"])
    assert told["flops"] / told["flopsBefore"] == pytest.approx(passed / 6, abs=0.02)
    assert (checkpoint / "model.safetensors").read_bytes() == (classifier / "model.safetensors").read_bytes()


def test_the_engine_answers_in_order_whoever_leaves(built: Built, plain: Path, expected: Any) -> None:
    told = built.stage("exit")[1]
    early, runner = encoder(plain)
    assert isinstance(runner, ExitingRunner)
    found, _ = early.encode(texts())
    share = runner.exits / runner.rows
    assert runner.rows == len(texts())
    assert abs(share - told["exitShare"]) < 0.25
    assert agreement(found, expected) >= 1 - share * (1 - CONFIDENCE) - 0.1
    going_on = np.abs(found - expected).max(axis=1) < 1e-3
    assert going_on.sum() == len(texts()) - runner.exits, "who goes on gets the whole model's scores"
    backwards, _ = early.encode(texts()[::-1])
    assert np.abs(backwards[::-1] - found).max() < 1e-3
    alone = np.concatenate([early.encode([text])[0].copy() for text in texts()[:6]])
    assert np.abs(alone - found[:6]).max() < 1e-3

    nobody, runner = encoder(plain, threshold=1.0)
    assert np.abs(nobody.encode(texts()[:16])[0] - expected[:16]).max() < 1e-3
    assert runner.exits == 0
    everybody, runner = encoder(plain, threshold=1e-6)
    assert np.isfinite(everybody.encode(texts()[:16])[0]).all()
    assert runner.exits == 16


def test_first_and_rest_are_quantised_and_the_answers_stay(built: Built, plain: Path, tmp_path: Path) -> None:
    described = description_of(plain)
    if described.backend is Backend.OPENVINO:
        folder = built.stage("compile")[0]
    else:
        folder = dynamically_quantized(plain, tmp_path)
    before, after = ({part: _bytes(each / "engine" / part.value) for part in ExitPart} for each in (plain, folder))
    assert after[ExitPart.REST] < 0.3 * before[ExitPart.REST]
    assert after[ExitPart.FIRST] < before[ExitPart.FIRST] - 4e6, "a layer has 1.8 M weights; tables may stay"
    assert after[ExitPart.HEAD] == before[ExitPart.HEAD]
    scores = encoder(plain)[0].encode(texts())[0]
    assert agreement(encoder(folder)[0].encode(texts())[0], scores) > 0.8


def dynamically_quantized(plain: Path, folder: Path) -> Path:
    described = description_of(plain)
    settings = Quantization.model_validate({"format": "INT8", "method": "Dynamic"})
    measured = list(feeds(texts()[:2], plain / "tokenizer", described, max_tokens=TOKENS))
    (folder / "graph").mkdir()
    backend_for(described).quantize(plain / "graph", described, settings, measured, folder / "graph")
    shutil.copytree(plain / "tokenizer", folder / "tokenizer")
    return compiled(folder / "graph", described, folder)


def test_a_build_with_an_exit_is_judged_and_served_as_a_whole(built: Built, expected: Any, tmp_path: Path) -> None:
    outcome = built.outcome
    assert "leave after layer" in built.messages["exit"]
    assert outcome.evidence is not None
    quality, benchmark = outcome.evidence.quality, outcome.evidence.benchmark
    assert quality.verdict is Verdict.PASSED
    assert benchmark.size_bytes < benchmark.baseline_size_bytes / 3

    # As the node of a server does: fetched, checked, loaded.
    assert outcome.artifact is not None
    dest = tmp_path / "models"
    admit(
        Admission(outcome.artifact.uri, outcome.artifact.digest, dest, "exiting", None, "cpu", (), False, None, 2**30)
    )
    place = engine_folder(dest, "exiting")
    figures = json.loads((place / "report.json").read_text())["results"]["exit"]
    assert figures["flops"] < figures["flopsBefore"]
    served, runner = encoder(place)
    assert isinstance(runner, ExitingRunner)
    assert agreement(served.encode(texts())[0], expected) > 0.8
    assert 0.1 < runner.exits / runner.rows < 1


def request(wanted: Recipe) -> BuildRequest:
    toolchain = Toolchain(image="local", digest="d" * 64)
    accelerator = AcceleratorFacts(accelerator_class="cpu", vendor="cpu", architecture=cpu_level())
    return BuildRequest.model_validate(
        {
            "key": build_key(wanted, toolchain, accelerator),
            "recipe": wanted.wire(),
            "toolchain": toolchain.wire(),
            "accelerator": accelerator.wire(),
            "evidence": {
                "dataset": {"builtin": {"name": "reviews-en"}},
                "metric": "Accuracy",
                "maxDrop": 0.5,
                "confidence": 0.9,
                "samples": 64,
            },
        }
    )


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*"))
