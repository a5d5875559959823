"""Checkpoints that must be refused: real broken files, one clear sentence that names the file."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from enginewright_api.engine_description import Pooling
from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.description import _precision, describe
from enginewright_builder.positions import check_limits
from enginewright_builder.sources.checkpoint import check_source_names, inspect, kept
from enginewright_builder.sources.safetensors_file import read_header

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 8,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def checkpoint(folder: Path) -> Path:
    """The smallest folder that passes every check."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": {}}}))
    save_file({"embeddings.weight": np.zeros((4, 8), np.float32)}, folder / "model.safetensors")
    return folder


def shards(folder: Path) -> None:
    """The weights in two files and an index."""
    (folder / "model.safetensors").unlink()
    save_file({"a": np.zeros(4, np.float32)}, folder / "model-1.safetensors")
    save_file({"b": np.zeros(4, np.float32)}, folder / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, count: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-count]) and None


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def both(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for step in steps:
            step(folder)

    return apply


def torch_zip(name: str) -> Callable[[Path], None]:
    """What torch.save writes: a zip with data.pkl inside."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": 1}))
    return write(name, stream.getvalue())


def tar(name: str) -> Callable[[Path], None]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    return write(name, stream.getvalue())


def header(fields: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

BROKEN: list[tuple[str, Callable[[Path], None], str, list[str]]] = [
    ("truncated", cut("model.safetensors", 5), "InvalidCheckpoint", ["model.safetensors", "truncated"]),
    ("missing weights", drop("model.safetensors"), "InvalidCheckpoint", ["model.safetensors", "missing"]),
    ("missing shard", both(shards, drop("model-2.safetensors")), "InvalidCheckpoint", ["model-2.safetensors", "shard"]),
    ("cut shard", both(shards, cut("model-1.safetensors", 1)), "InvalidCheckpoint", ["model-1.safetensors"]),
    (
        "shard without its tensor",
        both(shards, write("model-2.safetensors", header({"c": TENSOR}, b"\0" * 8))),
        "InvalidCheckpoint",
        ["model-2.safetensors", "lacks b"],
    ),
    (
        "index that leads out",
        both(shards, write("model.safetensors.index.json", b'{"weight_map": {"a": "../x.safetensors"}}')),
        "InvalidCheckpoint",
        ["../x.safetensors"],
    ),
    ("empty weights", write("model.safetensors", b""), "InvalidCheckpoint", ["model.safetensors", "0 bytes"]),
    ("no header", write("model.safetensors", b"\xff" * 64), "InvalidCheckpoint", ["model.safetensors", "header"]),
    ("header is no JSON", write("model.safetensors", struct.pack("<Q", 4) + b"{{{{"), "InvalidCheckpoint", ["JSON"]),
    (
        "wrong shape",
        write("model.safetensors", header({"w": TENSOR | {"shape": [3]}}, b"\0" * 8)),
        "InvalidCheckpoint",
        ["model.safetensors", "w", "shape"],
    ),
    (
        "bytes too many",
        write("model.safetensors", header({"w": TENSOR}, b"\0" * 12)),
        "InvalidCheckpoint",
        ["model.safetensors", "no tensor"],
    ),
    ("pickle as safetensors", write("model.safetensors", pickle.dumps([1])), "UnsafeWeights", ["model.safetensors"]),
    ("torch zip as safetensors", torch_zip("model.safetensors"), "UnsafeWeights", ["model.safetensors"]),
    ("pickle as JSON", write("extra.json", pickle.dumps({"a": 1}, protocol=4)), "UnsafeWeights", ["extra.json"]),
    ("archive", tar("vocab.txt"), "ArchiveNotAccepted", ["vocab.txt", "archive"]),
    ("no config", drop("config.json"), "InvalidCheckpoint", ["config.json", "missing"]),
    ("broken config", write("config.json", b"{"), "InvalidCheckpoint", ["config.json", "JSON"]),
    ("no architectures", write("config.json", b"{}"), "InvalidCheckpoint", ["config.json", "architectures"]),
    (
        "empty architectures",
        write("config.json", b'{"architectures": []}'),
        "InvalidCheckpoint",
        ["config.json", "architectures"],
    ),
    ("no tokenizer", drop("tokenizer.json"), "InvalidCheckpoint", ["tokenizer.json", "missing"]),
    ("tokenizer of nothing", write("tokenizer.json", b"{}"), "InvalidCheckpoint", ["tokenizer.json", "model"]),
]


@pytest.mark.parametrize(("broken", "reason", "words"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_checkpoint_is_refused_by_a_sentence_that_names_it(
    tmp_path: Path, broken: Callable[[Path], None], reason: str, words: list[str]
) -> None:
    broken(checkpoint(tmp_path))
    with pytest.raises(DeterministicError) as caught:
        inspect(tmp_path)
    assert caught.value.reason == reason
    for word in words:
        assert word in caught.value.message
    assert "\n" not in caught.value.message


def test_the_smallest_right_checkpoint_passes(tmp_path: Path) -> None:
    found = inspect(checkpoint(tmp_path))
    assert (found.architecture, found.parameters, found.max_input_tokens) == ("BertModel", 32, 64)
    assert found.pooling() == (Pooling.MEAN, True)


def test_shards_pass_together(tmp_path: Path) -> None:
    shards(checkpoint(tmp_path))
    assert inspect(tmp_path).weights == ("model-1.safetensors", "model-2.safetensors")


@pytest.mark.parametrize(
    ("names", "reason", "word"),
    [
        (["pytorch_model.bin", "config.json"], "UnsafeWeights", "pytorch_model.bin"),
        (["weights.pt"], "UnsafeWeights", "weights.pt"),
        (["config.json"], "InvalidCheckpoint", "safetensors"),
    ],
)
def test_sources_without_safetensors_are_refused_by_name(names: list[str], reason: str, word: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        check_source_names(names, where="org/name")
    assert caught.value.reason == reason
    assert word in caught.value.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.safetensors", True),
        ("1_Pooling/config.json", True),
        ("modeling_custom.py", False),
        ("pytorch_model.bin", False),
        ("onnx/deep/model.json", False),
        (".cache/x.json", False),
    ],
)
def test_only_weights_configuration_and_tokenizer_are_copied(name: str, expected: bool) -> None:
    assert kept(name) is expected


def pooled(folder: Path, settings: dict[str, Any], *, modules: list[str]) -> None:
    checkpoint(folder)
    listed = [
        {"path": "1_Pooling" if kind == "Pooling" else "", "type": f"sentence_transformers.models.{kind}"}
        for kind in modules
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("settings", "modules", "expected"),
    [
        ({"pooling_mode_mean_tokens": True}, ["Transformer", "Pooling", "Normalize"], (Pooling.MEAN, True)),
        ({"pooling_mode_cls_token": True}, ["Transformer", "Pooling"], (Pooling.CLS, False)),
    ],
)
def test_pooling_is_read_from_the_sentence_transformers_files(
    tmp_path: Path, settings: dict[str, Any], modules: list[str], expected: tuple[Pooling, bool]
) -> None:
    pooled(tmp_path, settings, modules=modules)
    assert inspect(tmp_path).pooling() == expected


@pytest.mark.parametrize(
    ("settings", "modules", "word"),
    [
        ({"pooling_mode_max_tokens": True}, ["Transformer", "Pooling"], "pooling_mode_max_tokens"),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            ["Transformer", "Pooling"],
            "pooling_mode_cls_token",
        ),
        ({"pooling_mode_mean_tokens": True}, ["Transformer", "Pooling", "Dense"], "Dense"),
    ],
)
def test_pooling_that_is_not_available_is_named(
    tmp_path: Path, settings: dict[str, Any], modules: list[str], word: str
) -> None:
    pooled(tmp_path, settings, modules=modules)
    with pytest.raises(DeterministicError) as caught:
        inspect(tmp_path).pooling()
    assert caught.value.reason == "FeatureNotAvailable"
    assert word in caught.value.message


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "source": {"objectStore": {"uri": "s3://b/x"}},
            "task": "Embedding",
            "backend": "OpenVINO",
            "limits": {"maxInputTokens": 64},
        }
        | changes
    )


def test_inputs_longer_than_the_positions_are_refused(tmp_path: Path) -> None:
    found = inspect(checkpoint(tmp_path))
    check_limits(found.config, recipe())
    with pytest.raises(DeterministicError) as caught:
        check_limits(found.config, recipe(limits={"maxInputTokens": 65}))
    assert caught.value.reason == "LimitExceeded"
    assert "engine.limits.maxInputTokens" in caught.value.message


def test_the_positions_that_roberta_never_uses_do_not_count(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (folder / "config.json").write_text(
        json.dumps(CONFIG | {"model_type": "xlm-roberta", "max_position_embeddings": 514})
    )
    assert inspect(folder).max_input_tokens == 512


def test_an_embedding_model_cannot_classify(tmp_path: Path) -> None:
    found = inspect(checkpoint(tmp_path))
    with pytest.raises(DeterministicError, match="BertModel"):
        describe(found, recipe(task=Task.CLASSIFICATION), Backend.OPENVINO)


def test_a_classifier_is_described_with_its_labels_in_order(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    labels = {"1": "bad", "0": "good", "10": "ugly"}
    (folder / "config.json").write_text(
        json.dumps(CONFIG | {"architectures": ["BertForSequenceClassification"], "id2label": labels})
    )
    found = describe(inspect(folder), recipe(task=Task.CLASSIFICATION), Backend.TORCH)
    assert (found.labels, found.output, found.output_dimension) == (["good", "bad", "ugly"], "scores", 3)


@pytest.mark.parametrize(
    ("task", "head"),
    [
        (Task.CLASSIFICATION, "BertForSequenceClassification"),
        (Task.TOKEN_CLASSIFICATION, "BertForTokenClassification"),
    ],
)
@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"0": "B-PER", "1": "O", "2": "B-PER"}, "names classes 0, 2 'B-PER'"),
        ({"1": "LABEL", "2": "LABEL", "0": "LABEL"}, "names classes 0, 1, 2 'LABEL'"),
        ({"0": 1, "1": "1"}, "names classes 0, 1 '1'"),
    ],
)
def test_classes_that_share_a_name_are_refused(
    tmp_path: Path, task: Task, head: str, labels: dict[str, Any], sentence: str
) -> None:
    folder = checkpoint(tmp_path)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"architectures": [head], "id2label": labels}))
    with pytest.raises(DeterministicError) as caught:
        describe(inspect(folder), recipe(task=task), Backend.TORCH)
    assert caught.value.reason == "InvalidCheckpoint"
    assert caught.value.message == f"config.json: id2label {sentence}; give each class a name of its own"


@pytest.mark.parametrize(
    ("quantization", "hint"),
    [(None, "f32"), ({"format": "FP16"}, "f32"), ({"format": "BF16"}, "bf16"), ({"format": "INT8"}, "f32")],
)
def test_only_bf16_changes_the_precision_of_inference(tmp_path: Path, quantization: Any, hint: str) -> None:
    found = inspect(checkpoint(tmp_path))
    assert describe(found, recipe(quantization=quantization), Backend.OPENVINO).precision_hint == hint


@pytest.mark.parametrize(
    ("backend", "quantization", "architecture", "hint"),
    [
        (Backend.OPENVINO, {"format": "INT8"}, "x86_64-amx", "bf16"),
        (Backend.OPENVINO, {"format": "INT4", "method": "GPTQ"}, "x86_64-amx", "bf16"),
        (Backend.OPENVINO, {"format": "INT8"}, "x86_64-avx512-vnni", "f32"),
        (Backend.OPENVINO, {"format": "INT8"}, "x86_64-zen4", "bf16"),
        (Backend.OPENVINO, {"format": "INT8"}, "x86_64-avx512-bf16", "f32"),
        (Backend.OPENVINO, {"format": "INT8"}, "", "f32"),
        (Backend.OPENVINO, None, "x86_64-amx", "f32"),
        (Backend.OPENVINO, {"format": "FP16"}, "x86_64-amx", "f32"),
        (Backend.ONNX_RUNTIME, {"format": "INT8"}, "x86_64-amx", "f32"),
        (Backend.TORCH, {"format": "INT8"}, "x86_64-amx", "f32"),
    ],
)
def test_what_is_not_quantised_runs_in_bf16_where_the_cpu_gains_from_it(
    backend: Backend, quantization: Any, architecture: str, hint: str
) -> None:
    for task, expected in (("Classification", hint), ("Embedding", hint), ("TextGeneration", "f32")):
        wanted = recipe(quantization=quantization).model_copy(update={"task": Task(task)})
        assert _precision(wanted, backend, architecture) == expected


def test_a_short_header_is_not_taken_for_a_pickle(tmp_path: Path) -> None:
    """Its length can begin with the byte that pickles begin with: 0x80."""
    for length in range(1, 400):
        save_file({"a" * length: np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
        if (tmp_path / "model.safetensors").read_bytes()[0] == 0x80:
            assert read_header(tmp_path / "model.safetensors", name="model.safetensors").parameters == 1
            return
    raise AssertionError("no header length began with 0x80")
