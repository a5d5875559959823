"""engine.json of engines for NVIDIA GPUs, and the sentence for when the tools are elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.serving_spec import Backend
from enginewright_builder.description import describe
from enginewright_builder.nvidia_runtime import toolchain_missing
from enginewright_builder.sources.checkpoint import Checkpoint
from tests.unit.builder.nvidia.recipes import LLAMA, encoder, llm


def checkpoint(folder: Path, **config: Any) -> Checkpoint:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    return Checkpoint(folder, {**LLAMA, "vocab_size": 32000, **config}, ("model.safetensors",), 1000)


@pytest.mark.parametrize(("flavor", "entry"), [("PyTorch", "llmapi"), ("Engine", "engine")])
def test_text_generation(tmp_path: Path, flavor: str, entry: str) -> None:
    recipe = llm(
        tensorRTLLM={"flavor": flavor},
        parallelism={"tensor": 2},
        quantization={"format": "FP8", "method": "MinMax", "kvCacheFormat": "FP8"},
    )
    found = describe(checkpoint(tmp_path), recipe, Backend.TENSORRT_LLM)
    assert (found.entry, found.runtime_package, found.runtime_version) == (entry, "tensorrt_llm", "1.2.1")
    assert found.tensor_rt_llm is not None
    assert found.tensor_rt_llm.wire() == {
        "flavor": flavor,
        "parallelism": {"tensor": 2, "pipeline": 1, "expert": 1, "context": 1},
        "kvCacheFormat": "FP8",
    }
    assert found.generation is not None
    baseline = describe(checkpoint(tmp_path), recipe, Backend.TORCH)
    assert baseline.entry != found.entry, "the entry says what is eager"
    assert baseline.tensor_rt_llm is None, "the baseline is one and the same for every flavour"


def test_an_encoder(tmp_path: Path) -> None:
    found = describe(checkpoint(tmp_path, architectures=["BertModel"]), encoder(), Backend.TENSORRT)
    assert (found.entry, found.runtime_package, found.runtime_version) == ("model.plan", "tensorrt", "26.07")


@pytest.mark.parametrize(
    ("backend", "image"),
    [
        (Backend.TENSORRT_LLM, "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"),
        (Backend.TENSORRT, "nvcr.io/nvidia/tritonserver:26.07-py3"),
    ],
)
def test_a_missing_tool_names_the_image(tmp_path: Path, backend: Backend, image: str) -> None:
    recipe, config = (llm(), {}) if backend is Backend.TENSORRT_LLM else (encoder(), {"architectures": ["BertModel"]})
    found = toolchain_missing(describe(checkpoint(tmp_path, **config), recipe, backend), "the-tool", tmp_path)
    assert found.reason == "ToolchainMissing"
    assert "the-tool is not on this machine" in found.message
    assert f"made from {image} ({tmp_path.name} is ready for it)" in found.message
