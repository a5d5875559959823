"""What recipes may ask of NVIDIA GPUs: refused by field name, with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.recipe import AcceleratorFacts, Task
from enginewright_api.serving_spec import Backend
from enginewright_api.support import resolve_backend, resolve_method, unavailable
from tests.unit.builder.nvidia.recipes import encoder, llm

QUANTIZATION = "optimization.quantization"
ENGINE = {"tensorRTLLM": {"flavor": "Engine"}}
FP8 = {"format": "FP8", "method": "MinMax"}
AWQ = {"format": "INT4", "method": "AWQ"}


def gpu(compute_capability: str = "9.0") -> AcceleratorFacts:
    return AcceleratorFacts(accelerator_class="nvidia-x", vendor="nvidia", compute_capability=compute_capability)


CPU = AcceleratorFacts(accelerator_class="cpu", vendor="cpu", architecture="x86_64-avx512-vnni")

ACCEPTED: list[dict[str, Any]] = [
    {},
    {"quantization": FP8, "parallelism": {"tensor": 4, "pipeline": 2}},
    {"quantization": {**FP8, "kvCacheFormat": "FP8", "exclude": ["model.layers.0"]}},
    {"quantization": {"format": "BF16", "kvCacheFormat": "FP8"}},
    {"quantization": {**AWQ, "granularity": "PerGroup", "groupSize": 64}},
    {"parallelism": {"tensor": 4, "expert": 2, "context": 2}},
    {"speculativeDecoding": {"method": "NGram"}},
    {"speculativeDecoding": {"method": "MTP"}},
    {**ENGINE, "quantization": {"format": "INT8", "method": "SmoothQuant", "kvCacheFormat": "INT8"}},
    {**ENGINE, "quantization": FP8, "parallelism": {"tensor": 2, "pipeline": 2}},
]

REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"quantization": FP8}, "8.6", f"{QUANTIZATION}.format", "needs compute capability 8.9 or later"),
    ({"quantization": AWQ}, "10.0", f"{QUANTIZATION}.format", "needs compute capability 8.0, 8.6, 8.9 or 9.0"),
    ({}, "7.5", "hardware.acceleratorClasses", "needs compute capability 8.0 or later"),
    (
        {"quantization": {"format": "INT8", "method": "SmoothQuant"}},
        "9.0",
        f"{QUANTIZATION}.method",
        "runs in flavor Engine only",
    ),
    (
        {**ENGINE, "quantization": {"format": "NVFP4", "method": "MinMax"}},
        "10.0",
        f"{QUANTIZATION}.method",
        "runs in flavor PyTorch only",
    ),
    ({"quantization": {"format": "INT4", "method": "GPTQ"}}, "9.0", f"{QUANTIZATION}.method", "GPTQ is not available"),
    ({"quantization": {"format": "INT2"}}, "9.0", f"{QUANTIZATION}.format", "INT2 is not available"),
    (
        {"quantization": {**FP8, "kvCacheFormat": "INT8"}},
        "9.0",
        f"{QUANTIZATION}.kvCacheFormat",
        "runs in flavor Engine only",
    ),
    (
        {**ENGINE, "quantization": {"format": "BF16", "kvCacheFormat": "FP8"}},
        "9.0",
        f"{QUANTIZATION}.kvCacheFormat",
        "needs ranges measured on rows",
    ),
    ({"quantization": {"format": "BF16", "exclude": ["a"]}}, "9.0", f"{QUANTIZATION}.exclude", "has no effect"),
    (
        {"quantization": {**FP8, "granularity": "PerGroup", "groupSize": 64}},
        "9.0",
        f"{QUANTIZATION}.granularity",
        "has no effect with format FP8",
    ),
    (
        {"quantization": {**AWQ, "granularity": "PerGroup", "groupSize": 32}},
        "9.0",
        f"{QUANTIZATION}.groupSize",
        "kernels for groups of 64 and 128",
    ),
    ({"parallelism": {"tensor": 2, "expert": 4}}, "9.0", "parallelism.expert", "4 must divide parallelism.tensor (2)"),
    ({**ENGINE, "parallelism": {"context": 2}}, "9.0", "parallelism.context", "runs in flavor PyTorch only"),
    (
        {"speculativeDecoding": {"method": "EAGLE3"}},
        "9.0",
        "runtime.speculativeDecoding.method",
        "not available with TensorRTLLM yet",
    ),
    (
        {**ENGINE, "speculativeDecoding": {"method": "NGram"}},
        "9.0",
        "runtime.speculativeDecoding.method",
        "runs in flavor PyTorch only",
    ),
    (
        {"quantization": {**FP8, "calibration": {"dataset": {"builtin": {"name": "poems"}}}}},
        "9.0",
        f"{QUANTIZATION}.calibration.dataset.builtin.name",
        "there is no builtin set poems",
    ),
]

REFUSED_ENCODERS: list[tuple[dict[str, Any], str, str]] = [
    ({"quantization": FP8}, "8.0", f"{QUANTIZATION}.format"),
    ({"quantization": {"format": "BF16"}}, "7.5", f"{QUANTIZATION}.format"),
    ({"parallelism": {"tensor": 2}}, "9.0", "parallelism.tensor"),
    ({"tensorRTLLM": {}}, "9.0", "engine.tensorRTLLM"),
    ({"speculativeDecoding": {"method": "NGram"}}, "9.0", "runtime.speculativeDecoding"),
    ({"quantization": {**FP8, "kvCacheFormat": "FP8"}}, "9.0", f"{QUANTIZATION}.kvCacheFormat"),
    (
        {"quantization": {"format": "INT8", "method": "MinMax", "granularity": "PerTensor"}},
        "9.0",
        f"{QUANTIZATION}.granularity",
    ),
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_accepted(changes: dict[str, Any]) -> None:
    assert unavailable(llm(**changes), gpu()) == []


@pytest.mark.parametrize(("changes", "capability", "field", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_refused(changes: dict[str, Any], capability: str, field: str, words: str) -> None:
    found = unavailable(llm(**changes), gpu(capability))
    assert [path for path, _ in found] == [field]
    assert words in found[0][1]


@pytest.mark.parametrize(("changes", "capability", "field"), REFUSED_ENCODERS, ids=lambda value: str(value)[:60])
def test_refused_for_encoders(changes: dict[str, Any], capability: str, field: str) -> None:
    assert [path for path, _ in unavailable(encoder(**changes), gpu(capability))] == [field]


@pytest.mark.parametrize(
    "changes", [{"parallelism": {"tensor": 2}}, ENGINE, {"speculativeDecoding": {"method": "MTP"}}], ids=str
)
def test_on_a_cpu_they_stay_refused(changes: dict[str, Any]) -> None:
    recipe = llm(**{"backend": "OpenVINO", **changes})
    assert [path for path, _ in unavailable(recipe, CPU)] != []


def test_auto_on_a_gpu() -> None:
    assert resolve_backend(Task.TEXT_GENERATION, "nvidia") is Backend.TENSORRT_LLM
    assert resolve_backend(Task.EMBEDDING, "nvidia") is Backend.TENSORRT
    fp8 = llm(quantization=FP8).quantization
    assert fp8 is not None
    assert resolve_method(Backend.TENSORRT_LLM, fp8.format, Task.TEXT_GENERATION) is fp8.method
