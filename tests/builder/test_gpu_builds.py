"""The real builder on a recipe for a GPU class: everything up to the missing tool runs, and its image is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enginewright_api.recipe import AcceleratorFacts, BuildRequest, build_key
from enginewright_builder.datasets.news import calibration_rows
from tests.builder.building import Builder, request, states
from tests.builder.tiny_llama import write_tiny_llama

pytestmark = pytest.mark.timeout(600)
L4 = AcceleratorFacts(accelerator_class="nvidia-l4", vendor="nvidia", compute_capability="8.9")


def for_gpu(wanted: BuildRequest, **recipe: Any) -> BuildRequest:
    changed = wanted.recipe.model_validate({**wanted.recipe.wire(), **recipe})
    return wanted.model_copy(
        update={"recipe": changed, "accelerator": L4, "key": build_key(changed, wanted.toolchain, L4)}
    )


def test_an_encoder(tmp_path: Path) -> None:
    builder = Builder(tmp_path, tmp_path / "store")
    outcome, reports, code = builder.run(for_gpu(request("TensorRT", {"format": "FP16"}, samples=16)))
    assert outcome.failure is not None
    assert code != 0
    assert (outcome.failure.stage, outcome.failure.reason) == ("compile", "ToolchainMissing")
    assert "nvcr.io/nvidia/tritonserver:26.07-py3" in outcome.failure.message
    found = states(reports)
    assert (found["export"], found["quantize"]) == ("Succeeded", "Succeeded")


def test_a_decoder(tmp_path: Path) -> None:
    source = tmp_path / "llama"
    source.mkdir()
    write_tiny_llama(source, [row.text for row in calibration_rows()[:8]])
    quantization = {"format": "FP8", "method": "MinMax", "calibration": {"samples": 4, "maxTokens": 32}}
    wanted = for_gpu(
        request("TensorRT", None, metric="Perplexity", samples=4),
        source={"objectStore": {"uri": source.as_uri()}},
        task="TextGeneration",
        backend="TensorRTLLM",
        limits={"maxBatchSize": 2, "maxInputTokens": 48, "maxOutputTokens": 16},
        quantization=quantization,
    )
    outcome, reports, code = Builder(tmp_path, tmp_path / "store").run(wanted)
    assert outcome.failure is not None
    assert code != 0
    assert (outcome.failure.stage, outcome.failure.reason) == ("compile", "ToolchainMissing"), outcome.failure.message
    assert "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3" in outcome.failure.message
    assert states(reports)["quantize"] == "Succeeded"
