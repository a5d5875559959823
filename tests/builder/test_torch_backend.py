"""PyTorch compiled ahead of time: the same answers without the model's Python code, at every length and batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Recipe, Task
from enginewright_builder.compression.anatomy import layers_of
from enginewright_builder.compression.shrink import keep_layers
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.description import describe, describe_engine
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.torch_backend import ENTRY, SCRIPT, TorchBackend
from enginewright_serving.triton.runner import load_runner
from tests.builder.test_backends import MODEL

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs a C++ compiler (g++)"),
]
RECIPE = Recipe.model_validate(
    {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "Embedding", "backend": "Torch", "limits": {}}
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM's first and last layer: what the compiler writes is the same for each layer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = load_model(MODEL, Task.EMBEDDING)
    keep_layers(model, layers_of(model, field="test"), [0, 5])
    save_model(model, MODEL, folder)
    return folder


@pytest.fixture(scope="module")
def engine(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine folder as the server gets it."""
    folder = tmp_path_factory.mktemp("engine")
    graph = tmp_path_factory.mktemp("graph")
    description = describe_engine(inspect(checkpoint), RECIPE)
    TorchBackend().export(checkpoint, description, graph)
    (folder / "engine").mkdir()
    TorchBackend().compile(graph, description, folder / "engine")
    (folder / "engine.json").write_text(json.dumps(description.wire()))
    return folder


def _description(folder: Path) -> EngineDescription:
    return EngineDescription.model_validate_json((folder / "engine.json").read_bytes())


def test_the_compiled_engine_answers_as_eager_does(checkpoint: Path, engine: Path, tmp_path: Path) -> None:
    eager_folder = tmp_path / "engine"
    eager_folder.mkdir()
    (eager_folder / "checkpoint").symlink_to(checkpoint)
    baseline = describe(inspect(checkpoint), RECIPE, RECIPE.backend)
    assert (baseline.entry, _description(engine).entry) == ("checkpoint", ENTRY)
    eager, compiled = load_runner(tmp_path, baseline, 2), load_runner(engine, _description(engine), 2)
    generator = np.random.default_rng(0)
    for batch, tokens in ((1, 2), (1, 16), (3, 40), (8, 128)):
        ids = generator.integers(5, 20000, (batch, tokens))
        mask = np.ones_like(ids)
        mask[-1, tokens // 2 :] = 0
        np.testing.assert_allclose(
            compiled.run({"input_ids": ids, "attention_mask": mask}),
            eager.run({"input_ids": ids, "attention_mask": mask}),
            atol=1e-4,
        )


def test_torchscript_lies_beside_it_for_older_servers(engine: Path) -> None:
    import torch

    script = torch.jit.load(str(engine / "engine" / SCRIPT))
    compiled = load_runner(engine, _description(engine), 2)
    ids = np.arange(10, 42, dtype=np.int64).reshape(2, 16)
    mask = np.ones_like(ids)
    with torch.inference_mode():
        found = script(*(torch.from_numpy(tensor) for tensor in (ids, mask, np.zeros_like(ids)))).numpy()
    np.testing.assert_allclose(found, compiled.run({"input_ids": ids, "attention_mask": mask}), atol=1e-4)


def test_without_a_compiler_it_says_so(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeterministicError, match="needs a C\\+\\+ compiler") as caught:
        TorchBackend().compile(tmp_path, _description(engine), tmp_path)
    assert caught.value.reason == "ToolchainMissing"
