"""Encoders whose answer is read from the first token compute no more of the last layer, and answer the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
import transformers

from enginewright_api.engine_description import EngineDescription
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.compression.prune import prune
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import quiet
from enginewright_builder.description import describe
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.first_token import first_token_only
from enginewright_builder.toolchain.onnxruntime_backend import module_names
from tests.builder.test_pruning import pruning
from tests.builder.tiny import save_tiny

pytestmark = pytest.mark.timeout(300)
OPENVINO = backend_of(Backend.OPENVINO)
SHAPE = {
    "vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "num_labels": 3,
}  # fmt: skip


def described(folder: Path, task: str = "Classification", *, backend: Backend = Backend.OPENVINO) -> EngineDescription:
    recipe = Recipe.model_validate(
        {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": task, "backend": backend.value, "limits": {}}
    )
    return describe(inspect(folder), recipe, backend, architecture="")


def inputs(description: EngineDescription, tokens: int = 11) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 90, (3, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, tokens // 2 + 1 :] = 0
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: known[name] for name in description.inputs}


def values(description: EngineDescription) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in inputs(description).items()}


def eager(folder: Path, description: EngineDescription, tokens: int = 11) -> Any:
    """What the untouched model says."""
    with torch.no_grad():
        return load_model(folder, description.task).eval()(**inputs(description, tokens)).logits.numpy()


def saved(kind: str, folder: Path) -> Path:
    save_tiny("bert", folder)  # its tokenizer serves them all
    config: Any = getattr(transformers, f"{kind}Config")(**SHAPE)
    torch.manual_seed(3)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "XLMRoberta", "Electra", "Camembert"])
@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "heads pruned"])
def test_classifiers_answer_the_same(kind: str, pruned: bool, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "whole")
    description = described(folder)
    if pruned:
        prune(folder, description.task, pruning("Heads", sparsity=0.5), [], tmp_path / "pruned", quiet)
        folder = tmp_path / "pruned"
    plain, spared = (load_model(folder, description.task).eval() for _ in range(2))
    assert first_token_only(spared, description)
    with torch.no_grad():
        wanted = plain(**inputs(description)).logits
        assert torch.allclose(spared(**inputs(description)).logits, wanted, atol=1e-5)
        states = spared.base_model(**inputs(description)).last_hidden_state
    assert states.shape[1] == 1
    OPENVINO.export(folder, description, tmp_path)
    engine = ov.Core().compile_model(tmp_path / "openvino.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answered = engine(values(description))[description.output]
    np.testing.assert_allclose(answered, wanted.numpy(), atol=1e-4)


def test_the_engine_holds_no_last_feed_forward_for_other_tokens(tmp_path: Path) -> None:
    folder = saved("Bert", tmp_path / "whole")
    description = described(folder)
    OPENVINO.export(folder, description, tmp_path)
    model = ov.Core().read_model(tmp_path / "openvino.xml")
    model.reshape({name: [3, 11] for name in description.inputs})
    tokens = {
        node.get_friendly_name(): node.input_value(0).get_shape()[1]
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and "layer.1" in node.get_friendly_name()
    }
    assert sorted(tokens.values()) == [1, 1, 1, 1, 11, 11], tokens  # query, output and two of the feed-forward; k and v


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_onnx_engines_answer_the_same_and_keep_their_modules_names(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "whole")
    description = described(folder, backend=Backend.ONNX_RUNTIME)
    backend = backend_of(Backend.ONNX_RUNTIME)
    told = backend.export(folder, description, tmp_path)
    assert told is not None
    assert told["fused"] == {"MultiHeadAttention": 1, "LayerNormalization": 5, "BiasGelu": 2}, "the last is no pattern"
    (answered,) = backend.answers(tmp_path, description, [values(description)], 1)
    np.testing.assert_allclose(answered, eager(folder, description), atol=1e-5)
    named = set(module_names(tmp_path / "model.onnx").values())
    whole, last = ({name for name in named if f"layer.{number}." in name} for number in (0, 1))
    assert {name.replace("layer.0.", "layer.1.") for name in whole} <= last, "or `exclude` would not find them"
    assert any(name.endswith("attention.self.query") for name in last)


def test_torch_engines_answer_the_same(tmp_path: Path) -> None:
    folder = saved("Bert", tmp_path / "whole")
    description = described(folder, backend=Backend.TORCH)
    backend_of(Backend.TORCH).export(folder, description, tmp_path)
    program = torch.export.load(tmp_path / "exported.pt2").module()
    for tokens in (2, 11, 30):
        given = inputs(description, tokens)
        with torch.no_grad():
            answered = program(*given.values())
        np.testing.assert_allclose(answered, eager(folder, description, tokens), atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "spared"), [("cls", True), ("mean", False)], ids=["first token", "mean"]
)  # fmt: skip
def test_embeddings_only_where_the_first_token_is_the_vector(pooling: str, spared: bool, tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path)
    from enginewright_api.engine_description import Pooling

    chosen = Pooling.CLS if pooling == "cls" else Pooling.MEAN
    description = described(folder, "Embedding").model_copy(update={"pooling": chosen})
    model = load_model(folder, description.task)
    assert first_token_only(model, description) is spared


def test_others_are_left_as_they_are(tmp_path: Path) -> None:
    for kind, task in (("distilbert", "Embedding"), ("llama", "TextGeneration")):
        folder = save_tiny(kind, tmp_path / kind)
        model = load_model(folder, described(folder, task).task)
        assert not first_token_only(model, described(folder, task))
