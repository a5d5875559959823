"""engine.json of text generation follows from checkpoint and recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend, SpeculativeDecoding, SpeculativeMethod
from enginewright_builder.description import describe
from enginewright_builder.positions import check_limits
from enginewright_builder.sources.checkpoint import Checkpoint, inspect

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "vocab_size": 32,
    "max_position_embeddings": 256, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip


def checkpoint(folder: Path, *, config: dict[str, Any] = CONFIG, **files: Any) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {}}))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    save_file({"w": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    return inspect(folder)


def recipe(quantization: dict[str, Any] | None = None, **limits: int) -> Recipe:
    return Recipe.model_validate(
        {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "TextGeneration", "backend": "OpenVINO",
         "limits": {"maxInputTokens": 64, "maxOutputTokens": 32} | limits, "quantization": quantization}
    )  # fmt: skip


def described(folder: Path, quantization: dict[str, Any] | None = None, **files: Any) -> EngineDescription:
    return describe(checkpoint(folder, **files), recipe(quantization), Backend.OPENVINO)


def test_what_the_server_needs(tmp_path: Path) -> None:
    found = described(tmp_path, tokenizer_config={"chat_template": "{{ messages }}"})
    assert (found.entry, found.output, found.output_dimension) == ("openvino_model.xml", "logits", 32)
    assert found.generation is not None
    assert (found.generation.eos_token_ids, found.generation.chat_template) == ([2], True)
    assert found.generation.max_context_tokens == 96
    assert found.pad_token_id == 1


def test_the_context_ends_with_the_positions(tmp_path: Path) -> None:
    wanted = recipe(maxInputTokens=255, maxOutputTokens=200)
    found = describe(checkpoint(tmp_path), wanted, Backend.OPENVINO)
    assert found.generation is not None
    assert found.generation.max_context_tokens == 256


def test_end_tokens_of_generation_config_come_first(tmp_path: Path) -> None:
    found = described(tmp_path, generation_config={"eos_token_id": [5, 6]})
    assert found.generation is not None
    assert found.generation.eos_token_ids == [5, 6]


@pytest.mark.parametrize(
    ("quantization", "cache", "precision"),
    [
        (None, "f32", "f32"),
        ({"format": "INT4", "method": "AWQ"}, "f16", "f32"),
        ({"format": "INT8", "kvCacheFormat": "INT8"}, "u8", "f32"),
        ({"format": "None", "kvCacheFormat": "FP16"}, "f16", "f32"),
        ({"format": "BF16"}, "f16", "bf16"),
    ],
)
def test_the_cache_loses_nothing_that_was_not_asked_for(
    tmp_path: Path, quantization: dict[str, Any] | None, cache: str, precision: str
) -> None:
    found = described(tmp_path, quantization)
    assert found.generation is not None
    assert (found.generation.kv_cache_precision, found.precision_hint) == (cache, precision)
    baseline = describe(checkpoint(tmp_path), recipe(quantization), Backend.TORCH)
    assert baseline.generation is not None
    assert (baseline.generation.kv_cache_precision, baseline.precision_hint) == ("f32", "f32")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CONFIG | {"architectures": ["LlamaModel"]}, "has no language head"),
        ({key: value for key, value in CONFIG.items() if key != "eos_token_id"}, "eos_token_id is missing"),
    ],
)
def test_what_cannot_generate_is_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(DeterministicError, match=words):
        described(tmp_path, config=config)


@pytest.mark.parametrize("field", ["maxInputTokens", "maxOutputTokens"])
def test_limits_that_leave_no_room_are_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(DeterministicError, match=rf"engine.limits.{field}: 256 leaves no room in the 256 positions"):
        check_limits(CONFIG, recipe(**{field: 256}))


def test_speculative_decoding_is_the_engines_not_the_baselines(tmp_path: Path) -> None:
    found = checkpoint(tmp_path)
    wanted = recipe().model_copy(
        update={"speculative_decoding": SpeculativeDecoding(method=SpeculativeMethod.NGRAM, draft_tokens=6)}
    )
    engine, baseline = (describe(found, wanted, backend) for backend in (Backend.OPENVINO, Backend.TORCH))
    assert engine.generation is not None
    assert engine.generation.speculative_decoding == wanted.speculative_decoding
    assert baseline.generation is not None
    assert baseline.generation.speculative_decoding is None
