"""Every field of every spec is acted on, shown, or refused by name; one that nobody listed here fails.

HONOURED names for each field the module that reads it and the word it is read by; the module must still hold that word.
REFUSED holds a spec that sets the field; validation or the plan must refuse it by name.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.crd import Schema, definitions, schema_of
from enginewright_api.engine_build import EngineBuild
from enginewright_api.optimized_model import OptimizedModel
from enginewright_api.recipe import BuildRequest
from enginewright_api.validation import admit, problems
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import class_choice
from tests.scenarios.models import accelerator_class, gpu_class, model
from tests.unit.operator.snapshots import drafted, snapshot

BUILDER, OPERATOR = "enginewright_builder", "enginewright_operator.core"
JOBS, PODS, SERVING = (f"{OPERATOR}.render.{name}" for name in ("jobs", "pods", "serving"))
TRITON, GATEWAY = "enginewright_serving.model_config", "enginewright_gateway.watch"
SCALING = "enginewright_autoscaler.policy.config"
DRAW, ROWS, ORIGINS, HUB, HUB_ACCESS, DATASET_ORIGINS = (
    f"{BUILDER}.{name}"
    for name in (
        "datasets.draw",
        "datasets.rows",
        "sources.origins",
        "sources.hub",
        "sources.hub_access",
        "datasets.origins",
    )
)
ONNX, OPENVINO = (f"{BUILDER}.toolchain.{name}_backend" for name in ("onnxruntime", "openvino"))
Honoured = dict[str, tuple[str, str]]


def _below(prefix: str, fields: Honoured) -> Honoured:
    return {f"{prefix}{field}": reader for field, reader in fields.items()}


DATASET: Honoured = {
    "huggingFace.repository": (HUB_ACCESS, "source.repository"),
    "huggingFace.revision": (HUB_ACCESS, "source.revision"),
    "huggingFace.tokenSecretRef.name": (JOBS, "token_secret_ref.name"),
    "huggingFace.tokenSecretRef.key": (HUB_ACCESS, "reference.key"),
    "huggingFace.split": (DATASET_ORIGINS, "dataset.split"),
    "objectStore.uri": (DRAW, "object_store.uri"),
    "persistentVolumeClaim.claimName": (DRAW, "claim_name"),
    "persistentVolumeClaim.path": (DRAW, "claim.path"),
    "configMap.name": (DRAW, "config_map.name"),
    "configMap.key": (DRAW, "config_map.key"),
    "builtin.name": (DRAW, "builtin.name"),
    "columns.text": (ROWS, "columns.text"),
}
QUANTIZATION: Honoured = {
    "format": (ONNX, "quantization.format"),
    "method": (OPENVINO, "quantization.method"),
    "granularity": (OPENVINO, "quantization.granularity"),
    "exclude": (ONNX, "quantization.exclude"),
    "groupSize": (f"{BUILDER}.toolchain.weight_only.compress", "quantization.group_size"),
    "kvCacheFormat": ("enginewright_api.support", "quantization.kv_cache_format"),
    "mixed.averageBits": (f"{BUILDER}.toolchain.weight_only.compress", "mixed.average_bits"),
    "mixed.formats": (f"{BUILDER}.toolchain.weight_only.compress", "mixed.formats"),
}
SOURCE: Honoured = {
    "huggingFace.repository": (HUB, "source.repository"),
    "huggingFace.revision": (HUB, "source.revision"),
    "huggingFace.tokenSecretRef.name": (JOBS, "token_secret_ref.name"),
    "huggingFace.tokenSecretRef.key": (HUB_ACCESS, "reference.key"),
    "objectStore.uri": (ORIGINS, "source.uri"),
    "persistentVolumeClaim.claimName": (ORIGINS, "source.claim_name"),
    "persistentVolumeClaim.path": (ORIGINS, "source.path"),
    "package.name": (ORIGINS, "source.name"),
    "package.version": (ORIGINS, "source.version"),
    "package.sha256": (ORIGINS, "source.sha256"),
    "package.path": (ORIGINS, "source.path"),
}
PRUNE = f"{BUILDER}.compression.prune"
PRUNING: Honoured = {
    "granularity": (f"{PRUNE}.structured", "settings.granularity"),
    "criterion": (f"{PRUNE}.structured", "pruning.criterion"),
    "sparsity": (f"{PRUNE}.schedule", "sparsity"),
    "schedule.type": (f"{PRUNE}.schedule", "schedule.type"),
    "schedule.steps": (f"{PRUNE}.schedule", "schedule.steps"),
    "recoverySteps": (f"{PRUNE}.schedule", "recovery_steps"),
}
LOW_RANK: Honoured = {
    name: (f"{BUILDER}.compression.low_rank", read)
    for name, read in (("method", "SVD"), ("energy", "settings.energy"), ("rank", "settings.rank"))
}
DISTIL = f"{BUILDER}.compression.distill"
TOLERATION: Honoured = dict.fromkeys(
    ("key", "operator", "value", "effect", "tolerationSeconds"), (PODS, "toleration.wire")
)
HONOURED: dict[type[BaseModel], Honoured] = {
    OptimizedModel: {
        **_below("source.", SOURCE),
        "task": (f"{BUILDER}.description", "recipe.task"),
        "optimization.distillation.student.layers": (DISTIL, "student.layers"),
        **_below("optimization.distillation.student.source.", SOURCE),
        "optimization.distillation.objectives": (DISTIL, "settings.objectives"),
        "optimization.distillation.temperature": (DISTIL, "settings.temperature"),
        "optimization.distillation.alpha": (DISTIL, "settings.alpha"),
        "optimization.distillation.maxSteps": (DISTIL, "settings.max_steps"),
        **_below("optimization.distillation.dataset.", DATASET),
        "optimization.distillation.dataset.columns.textPair": (ROWS, "columns.text_pair"),
        "optimization.distillation.dataset.columns.label": (ROWS, "columns.label"),
        **_below("optimization.pruning.", PRUNING),
        **_below("optimization.fallbacks[].pruning.", PRUNING),
        **_below("optimization.lowRank.", LOW_RANK),
        **_below("optimization.fallbacks[].lowRank.", LOW_RANK),
        **_below("optimization.quantization.", QUANTIZATION),
        **_below("optimization.quantization.calibration.dataset.", DATASET),
        "optimization.quantization.calibration.samples": (f"{BUILDER}.materials", "calibration.samples"),
        "optimization.quantization.calibration.maxTokens": (
            f"{BUILDER}.toolchain.process",
            "calibration.max_tokens",
        ),
        "optimization.fallbacks[].without": ("enginewright_api.optimization", "rung.without"),
        **_below("optimization.fallbacks[].quantization.", QUANTIZATION),
        "optimization.profile": (f"{OPERATOR}.choice", "optimization.profile"),
        "optimization.search.maxBuilds": (f"{OPERATOR}.search", "budget.max_builds"),
        "optimization.search.maxMinutes": (f"{OPERATOR}.search", "budget.max_minutes"),
        "engine.backend": (f"{OPERATOR}.resolution", "engine.backend"),
        "engine.limits.maxBatchSize": (TRITON, "limits.max_batch_size"),
        "engine.limits.maxOutputTokens": (f"{BUILDER}.positions", "limits.max_output_tokens"),
        "engine.limits.maxInputTokens": ("enginewright_serving.triton.text_encoder", "limits.max_input_tokens"),
        "runtime.speculativeDecoding.method": ("enginewright_api.support", "wanted.method"),
        "runtime.speculativeDecoding.draftTokens": (
            "enginewright_serving.triton.openvino_generation",
            "drafting.draft_tokens",
        ),
        **_below("runtime.speculativeDecoding.draft.source.", SOURCE),
        "runtime.fastPath.maxInputTokens": (f"{BUILDER}.description", "short.max_input_tokens"),
        "runtime.earlyExit.confidence": (f"{BUILDER}.compression.early_exit", "settings.confidence"),
        "batching.mode": (TRITON, "batching.mode"),
        "batching.maxBatchSize": (TRITON, "batching.max_batch_size"),
        "batching.preferredBatchSizes": (TRITON, "batching.preferred_batch_sizes"),
        "batching.maxQueueDelayMicroseconds": (TRITON, "batching.max_queue_delay_microseconds"),
        "batching.maxQueueSize": (GATEWAY, "batching.max_queue_size"),
        "batching.queueTimeoutMilliseconds": (GATEWAY, "batching.queue_timeout_milliseconds"),
        "batching.streamInterval": (TRITON, "batching.stream_interval"),
        **_below("quality.dataset.", DATASET),
        "quality.dataset.columns.textPair": (ROWS, "columns.text_pair"),
        "quality.dataset.columns.label": (ROWS, "columns.label"),
        "quality.dataset.columns.score": (ROWS, "columns.score"),
        "quality.metric": (f"{OPERATOR}.resolution", "quality.metric"),
        "quality.maxDrop": (f"{OPERATOR}.judgement", "quality.max_drop"),
        "quality.confidence": (f"{OPERATOR}.judgement", "quality.confidence"),
        "quality.samples": (f"{OPERATOR}.resolution", "quality.samples"),
        "hardware.acceleratorClasses": (f"{OPERATOR}.class_choice", "hardware.accelerator_classes"),
        "replicas": (f"{OPERATOR}.rollout", "spec.replicas"),
        "scaling.mode": (SCALING, "scaling.mode"),
        "scaling.minReplicas": (SCALING, "scaling.min_replicas"),
        "scaling.maxReplicas": (SCALING, "scaling.max_replicas"),
        "scaling.attainment": (SCALING, "scaling.attainment"),
        "scaling.objectives.latencyMilliseconds.p95": (SCALING, "objectives.latency_milliseconds"),
        "scaling.objectives.queueDepthPerReplica": (SCALING, "objectives.queue_depth_per_replica"),
        "rollout.strategy": (f"{OPERATOR}.availability", "rollout.strategy"),
        "rollout.canary.steps[].weight": (f"{OPERATOR}.canary", "step.weight"),
        "rollout.canary.steps[].seconds": (f"{OPERATOR}.canary", "step.seconds"),
        "rollout.guard.maxLatencyRatio": (f"{OPERATOR}.guard", "guard.max_latency_ratio"),
        "rollout.guard.maxErrorRate": (f"{OPERATOR}.guard", "guard.max_error_rate"),
        "rollout.maxSurge": (f"{OPERATOR}.rollout", "rollout.max_surge"),
        "rollout.progressDeadlineSeconds": (
            f"{OPERATOR}.rollout_progress",
            "rollout.progress_deadline_seconds",
        ),
        "rollout.paused": (f"{OPERATOR}.rollout", "rollout.paused"),
        "placement.nodeSelector": (PODS, "chosen.node_selector"),
        **_below("placement.tolerations[].", TOLERATION),
        "placement.priorityClassName": (PODS, "chosen.priority_class_name"),
        "placement.resources.requests": (SERVING, "chosen.requests"),
        "placement.resources.limits": (SERVING, "chosen.limits"),
    },
    AcceleratorClass: {
        "vendor": ("enginewright_serving.admission", "wanted.vendor"),
        "computeCapability": ("enginewright_serving.admission", "wanted.compute_capability"),
        "architecture": ("enginewright_serving.admission", "wanted.architecture"),
        "formats": (f"{OPERATOR}.class_fitness", "spec.formats"),
        "resource.name": (PODS, "resource.name"),
        "resource.quantity": (PODS, "resource.quantity"),
        "resourceClaimTemplate": (PODS, "resource_claim_template"),
        "acceleratorsPerNode": (f"{OPERATOR}.spread", "spec.accelerators_per_node"),
        "scheduling.nodeSelector": (PODS, "scheduling.node_selector"),
        **_below("scheduling.tolerations[].", TOLERATION),
        "scheduling.runtimeClassName": (PODS, "scheduling.runtime_class_name"),
        "cost.perHour": (f"{OPERATOR}.cost", "price.per_hour"),
        "cost.currency": (f"{OPERATOR}.cost", "cost.currency"),
    },
}
SHAPE, LLM = (f"{BUILDER}.tensorrt_llm.{name}" for name in ("shape", "llm_arguments"))
ON_GPUS: Honoured = {
    "engine.tensorRTLLM.flavor": (f"{BUILDER}.nvidia_runtime", "tensor_rt_llm.flavor"),
    "parallelism.tensor": (SHAPE, "parallelism.tensor"),
    "parallelism.pipeline": (SHAPE, "parallelism.pipeline"),
    "parallelism.expert": (SHAPE, "parallelism.expert"),
    "parallelism.context": (LLM, "parallelism.context"),
    "hardware.acceleratorsPerReplica": (SERVING, "accelerators_per_replica"),
}
"""Acted on where TensorRT-LLM runs, refused on class cpu: these are in REFUSED as well."""

SHOWN = ("memoryGiB", "interconnect")
"""Facts of an AcceleratorClass that `kubectl get` shows people, and that nothing follows from."""

OWN_OF_BUILDS: Honoured = {
    "key": (f"{BUILDER}.settings", "request.key"),
    "toolchain.image": (JOBS, "toolchain.image"),
    "toolchain.digest": (f"{BUILDER}.build", "toolchain.digest"),
    "accelerator.acceleratorClass": ("enginewright_api.support", "accelerator.accelerator_class"),
    "accelerator.vendor": ("enginewright_serving.admission", "wanted.vendor"),
    "accelerator.computeCapability": ("enginewright_serving.admission", "wanted.compute_capability"),
    "accelerator.architecture": ("enginewright_serving.admission", "wanted.architecture"),
    "evidence.metric": (f"{BUILDER}.gate.quality", "request.metric"),
    "evidence.maxDrop": (f"{BUILDER}.gate.quality", "request.max_drop"),
    "evidence.confidence": (f"{BUILDER}.gate.quality", "request.confidence"),
    "evidence.samples": (f"{BUILDER}.build", "evidence.samples"),
}
"""Fields of EngineBuild.spec and of BuildRequest that are not those of a model under another name."""

AS_IN_THE_MODEL = (
    ("recipe.source.", "source."),
    ("recipe.task", "task"),
    ("recipe.distillation.", "optimization.distillation."),
    ("recipe.pruning.", "optimization.pruning."),
    ("recipe.lowRank.", "optimization.lowRank."),
    ("recipe.quantization.", "optimization.quantization."),
    ("recipe.backend", "engine.backend"),
    ("recipe.limits.", "engine.limits."),
    ("recipe.tensorRTLLM.", "engine.tensorRTLLM."),
    ("recipe.parallelism.", "parallelism."),
    ("recipe.speculativeDecoding.", "runtime.speculativeDecoding."),
    ("recipe.earlyExit.", "runtime.earlyExit."),
    ("recipe.fastPath.", "runtime.fastPath."),
    ("evidence.dataset.", "quality.dataset."),
    # What the operator resolved from the data sets of the blocks.
    ("recipe.training.", "optimization.quantization.calibration.dataset."),
)

SECRET = {"secretRef": {"name": "s"}}
ROWS_IN_BUCKET = {"objectStore": {"uri": "s3://b/rows.csv", **SECRET}}
GENERATES = {"task": "TextGeneration"}


def _quantization(**block: Any) -> dict[str, Any]:
    return {"optimization": {"quantization": {"format": "INT8", **block}}}


def _distillation(**block: Any) -> dict[str, Any]:
    return {"optimization": {"distillation": {"student": {"layers": 3}, **block}}}


def _student(**source: Any) -> dict[str, Any]:
    return _distillation(student={"source": source})


def _draft(**source: Any) -> dict[str, Any]:
    drafting = {"method": "DraftModel", "draft": {"source": source}}
    return {**GENERATES, "runtime": {"speculativeDecoding": drafting}}


def _calibration(**dataset: Any) -> dict[str, Any]:
    return _quantization(calibration={"dataset": dataset})


REFUSED: dict[str, dict[str, Any]] = {
    "source.objectStore.secretRef": {"source": {"objectStore": {"uri": "s3://b/m", **SECRET}}},
    "source.oci": {"source": {"oci": {"reference": "r/m@sha256:" + "0" * 64}}},
    "optimization.distillation.teachers": _distillation(teachers=["other"]),
    "optimization.distillation.student.source.objectStore.secretRef": _student(
        objectStore={"uri": "s3://b/m", **SECRET}
    ),
    "optimization.distillation.student.source.oci": _student(oci={"reference": "r/m@sha256:" + "0" * 64}),
    "optimization.distillation.dataset.objectStore.secretRef": _distillation(dataset=ROWS_IN_BUCKET),
    "optimization.distillation.dataset.columns.score": _distillation(
        dataset={"configMap": {"name": "rows"}, "columns": {"score": "c"}}
    ),
    "optimization.quantization.calibration.dataset.objectStore.secretRef": _calibration(**ROWS_IN_BUCKET),
    **{
        f"optimization.quantization.calibration.dataset.columns.{column}": _calibration(
            configMap={"name": "rows"}, columns={column: "c"}
        )
        for column in ("textPair", "label", "score")
    },
    "engine.tensorRTLLM": {**GENERATES, "engine": {"tensorRTLLM": {"flavor": "Engine"}}},
    "parallelism.tensor": {
        "parallelism": {"tensor": 2},
        "hardware": {"acceleratorClasses": ["cpu"], "acceleratorsPerReplica": 2},
    },
    "parallelism.pipeline": {
        "parallelism": {"pipeline": 2},
        "hardware": {"acceleratorClasses": ["cpu"], "acceleratorsPerReplica": 2},
    },
    "parallelism.context": {
        "parallelism": {"context": 2},
        "hardware": {"acceleratorClasses": ["cpu"], "acceleratorsPerReplica": 2},
    },
    "parallelism.expert": {"parallelism": {"expert": 2}},
    "hardware.acceleratorsPerReplica": {"hardware": {"acceleratorClasses": ["cpu"], "acceleratorsPerReplica": 2}},
    "runtime.speculativeDecoding.draft.source.objectStore.secretRef": _draft(objectStore={"uri": "s3://b/m", **SECRET}),
    "runtime.speculativeDecoding.draft.source.oci": _draft(oci={"reference": "r/m@sha256:" + "0" * 64}),
    "runtime.kvCache": {**GENERATES, "runtime": {"kvCache": {"reuse": False}}},
    "runtime.cascade": {"runtime": {"cascade": {"to": {"name": "large"}, "confidence": 0.8}}},
    "quality.dataset.objectStore.secretRef": {"quality": {"dataset": ROWS_IN_BUCKET}},
    "scaling.objectives.timeToFirstTokenMilliseconds": {
        "scaling": {"mode": "Objectives", "objectives": {"timeToFirstTokenMilliseconds": {"p95": 9}}}
    },
    "scaling.objectives.interTokenMilliseconds": {
        "scaling": {"mode": "Objectives", "objectives": {"interTokenMilliseconds": {"p95": 9}}}
    },
}


def _leaves(node: Schema, prefix: str = "") -> Iterator[str]:
    for name, child in node.get("properties", {}).items():
        inner, path = (child["items"], f"{prefix}{name}[]") if child["type"] == "array" else (child, f"{prefix}{name}")
        if "properties" in inner:
            yield from _leaves(inner, f"{path}.")
        else:
            yield path.removesuffix("[]")


def _fields(kind: type[BaseModel]) -> list[str]:
    return list(_leaves(schema_of(kind)["properties"]["spec"]))


def _refused(field: str) -> bool:
    return any(field == block or field.startswith(f"{block}.") for block in REFUSED)


def _lookup(field: str) -> tuple[str, bool]:
    """Name of a build's field in the model, and whether it is the model's."""
    field = field.replace("evidence[].", "evidence.")
    for here, there in AS_IN_THE_MODEL:
        if field == here or (here.endswith(".") and field.startswith(here)):
            return field.replace(here, there, 1), True
    return field, False


@pytest.mark.parametrize("field", _fields(OptimizedModel))
def test_a_field_of_a_model_is_acted_on_or_refused(field: str) -> None:
    assert (field in HONOURED[OptimizedModel]) != _refused(field), f"{field}: list it once, with who honours it"


@pytest.mark.parametrize("field", _fields(AcceleratorClass))
def test_a_field_of_a_class_is_acted_on_or_shown(field: str) -> None:
    assert (field in HONOURED[AcceleratorClass]) != (field in SHOWN), f"{field}: list it once, with who honours it"


@pytest.mark.parametrize("field", _fields(EngineBuild))
def test_a_field_of_a_build_is_acted_on_or_refused(field: str) -> None:
    name, of_model = _lookup(field)
    if of_model:
        assert name in HONOURED[OptimizedModel] or _refused(name), f"{field}: {name} is not listed"
    elif name != "accelerator.memoryGiB":  # shown, as in the class
        assert name in OWN_OF_BUILDS, f"{field}: list it with who honours it"


def test_a_build_request_has_the_fields_of_a_build() -> None:
    assert set(BuildRequest.model_fields) == set(EngineBuild.model_fields["spec"].annotation.model_fields)  # type: ignore[union-attr]


def test_nothing_is_listed_that_does_not_exist() -> None:
    fields = {kind: set(_fields(kind)) for kind in (OptimizedModel, AcceleratorClass, EngineBuild)}
    for kind, listed in HONOURED.items():
        assert set(listed) <= fields[kind]
    assert {_lookup(field)[0] for field in fields[EngineBuild]} >= set(OWN_OF_BUILDS)
    for block in REFUSED:
        assert any(field == block or field.startswith(f"{block}.") for field in fields[OptimizedModel]), block


READERS = sorted({reader for table in (*HONOURED.values(), OWN_OF_BUILDS, ON_GPUS) for reader in table.values()})


@pytest.mark.parametrize(("module", "words"), READERS, ids=str)
def test_who_is_said_to_honour_a_field_reads_it(module: str, words: str) -> None:
    package, _, name = module.rpartition(".")
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations
    source = Path(found.submodule_search_locations[0]) / f"{name}.py"
    assert re.search(rf"\b{re.escape(words)}\b", source.read_text()), f"{source.name} does not read {words}"


@pytest.mark.parametrize("field", REFUSED)
def test_a_refused_field_is_refused_by_name(field: str) -> None:
    manifest = model(**REFUSED[field])
    sentences = problems(manifest)
    if not sentences:
        spec = admit(manifest)["spec"]
        finding = drafted(snapshot(spec), acceptance, class_choice).findings["Accepted"]
        assert (finding.status, finding.reason) == ("False", "FeatureNotAvailable")
        sentences = [finding.message]
    named = field.replace("fallbacks[]", "fallbacks[0]")
    # Rules stand at the object that holds the field and begin their sentence with its name.
    assert any(named in text or named.rpartition(".")[2] in text for text in sentences), sentences


@pytest.mark.parametrize("field", ON_GPUS)
def test_what_a_cpu_lacks_is_accepted_on_a_gpu(field: str) -> None:
    assert _refused(field)
    wanted = next(REFUSED[block] for block in REFUSED if field == block or field.startswith(f"{block}."))
    spec: dict[str, Any] = {**wanted, **GENERATES}
    if "expert" in field:
        spec["parallelism"] = {"tensor": 2, "expert": 2}
    count = math.prod(spec.get("parallelism", {}).get(name, 1) for name in ("tensor", "pipeline", "context"))
    if field == "hardware.acceleratorsPerReplica":
        spec["parallelism"], count = {"tensor": 2}, 2
    hardware = {"acceleratorClasses": ["nvidia-l4"], "acceleratorsPerReplica": count}
    manifest = admit(model(**{**spec, "optimization": {"quantization": {"format": "FP16"}}, "hardware": hardware}))
    finding = drafted(snapshot(manifest["spec"], classes=(gpu_class(),)), acceptance, class_choice).findings["Accepted"]
    assert finding.holds, finding.message


def test_the_refusals_stand_alone() -> None:
    """The model that they are added to is accepted as it is."""
    assert problems(model()) == []
    assert drafted(snapshot(admit(model())["spec"]), acceptance, class_choice).findings["Accepted"].holds


@pytest.mark.parametrize("field", SHOWN)
def test_what_is_said_to_be_shown_is_shown(field: str) -> None:
    (classes,) = [item for item in definitions() if item["spec"]["names"]["kind"] == "AcceleratorClass"]
    columns = classes["spec"]["versions"][0]["additionalPrinterColumns"]
    assert f".spec.{field}" in [column["jsonPath"] for column in columns]
    assert problems(accelerator_class(**{field: 8 if field == "memoryGiB" else "PCIe"})) == []
