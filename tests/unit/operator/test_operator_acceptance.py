"""What is refused, with which reason, naming which field."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import class_choice
from tests.scenarios.models import accelerator_class, gpu_class, settings
from tests.unit.operator.snapshots import drafted, snapshot

NOT_AVAILABLE: list[tuple[dict[str, Any], str]] = [
    (
        {"optimization": {"profile": "Latency", "fallbacks": [{"quantization": {"format": "FP16"}}]}},
        "optimization.fallbacks",
    ),
    (
        {"optimization": {"distillation": {"student": {"layers": 3}, "teachers": ["big"]}}},
        "optimization.distillation.teachers",
    ),
    ({"optimization": {"lowRank": {"energy": 0.9}}, "engine": {"backend": "Torch"}}, "optimization.lowRank"),
    (
        {
            "optimization": {"fallbacks": [{"pruning": {"granularity": "Heads"}}]},
            "engine": {"backend": "Torch"},
        },
        "optimization.fallbacks[0].pruning",
    ),
    ({"runtime": {"kvCache": {}}}, "runtime.kvCache"),
    ({"runtime": {"cascade": {"to": {"name": "large"}, "confidence": 0.8}}}, "runtime.cascade"),
    (
        {"engine": {"backend": "ONNXRuntime"}, "runtime": {"fastPath": {"maxInputTokens": 32}}},
        "runtime.fastPath",
    ),
    ({"batching": {"mode": "Continuous"}}, "batching.mode"),
    (
        {"rollout": {"strategy": "Canary", "canary": {"steps": [{"weight": 5, "seconds": 60}]}, "maxSurge": 0}},
        "rollout.maxSurge",
    ),
    ({"scaling": {"minReplicas": 0}}, "scaling.minReplicas"),
    ({"source": {"objectStore": {"uri": "s3://b/m", "secretRef": {"name": "s"}}}}, "source.objectStore.secretRef"),
    ({"source": {"oci": {"reference": "r/m@sha256:" + "0" * 64}}}, "source.oci"),
    (
        {"quality": {"dataset": {"objectStore": {"uri": "s3://b/d", "secretRef": {"name": "s"}}}}},
        "quality.dataset.objectStore.secretRef",
    ),
    ({"engine": {"backend": "TensorRT"}}, "hardware.acceleratorClasses"),
    (
        {
            "parallelism": {"tensor": 2},
            "hardware": {"acceleratorClasses": ["cpu"], "acceleratorsPerReplica": 2},
        },
        "parallelism.tensor",
    ),
    ({"engine": {"limits": {"maxOutputTokens": 64}}}, "engine.limits.maxOutputTokens"),
]
DATA = {"configMap": {"name": "rows"}}
DYNAMIC = {"format": "INT8", "method": "Dynamic"}
WITHOUT_EFFECT: list[tuple[dict[str, Any], str]] = [
    ({"optimization": {"quantization": {"format": "FP16", "exclude": ["x"]}}}, "optimization.quantization.exclude"),
    (
        {"optimization": {"quantization": {"format": "FP16", "granularity": "PerTensor"}}},
        "optimization.quantization.granularity",
    ),
    ({"optimization": {"quantization": {"format": "None", "exclude": ["x"]}}}, "optimization.quantization.exclude"),
    (
        {"optimization": {"fallbacks": [{"quantization": {"format": "None", "granularity": "PerTensor"}}]}},
        "optimization.fallbacks[0].quantization.granularity",
    ),
    (
        {"optimization": {"quantization": {**DYNAMIC, "calibration": {"samples": 8}}}},
        "optimization.quantization.calibration",
    ),
    (
        {
            "engine": {"backend": "ONNXRuntime"},
            "optimization": {"quantization": {"format": "INT8", "calibration": {"dataset": DATA}}},
        },
        "optimization.quantization.calibration",
    ),
    (
        {"quality": {"dataset": {"builtin": {"name": "news-en"}, "columns": {"text": "body"}}}},
        "quality.dataset.columns",
    ),
    ({"quality": {"dataset": {**DATA, "columns": {"label": "class"}}}}, "quality.dataset.columns.label"),
    (
        {"task": "Classification", "quality": {"dataset": {**DATA, "columns": {"label": "class", "textPair": "b"}}}},
        "quality.dataset.columns.textPair",
    ),
    (
        {"optimization": {"quantization": {"calibration": {"dataset": {**DATA, "columns": {"label": "class"}}}}}},
        "optimization.quantization.calibration.dataset.columns.label",
    ),
    ({"batching": {"mode": "None", "preferredBatchSizes": [4]}}, "batching.preferredBatchSizes"),
    ({"batching": {"mode": "None", "maxQueueDelayMicroseconds": 9}}, "batching.maxQueueDelayMicroseconds"),
    ({"scaling": {"maxReplicas": 3}}, "scaling.maxReplicas"),
    ({"scaling": {"minReplicas": 2, "maxReplicas": 2}}, "scaling.minReplicas"),
    ({"scaling": {"mode": "External", "objectives": {"queueDepthPerReplica": 1}}}, "scaling.objectives"),
    ({"scaling": {"attainment": 0.9}}, "scaling.attainment"),
    (
        {"scaling": {"mode": "Objectives", "attainment": 0.9, "objectives": {"queueDepthPerReplica": 1}}},
        "scaling.attainment",
    ),
]
"""Fields that something acts on, but not beside the others as they are set here."""

ACTED_ON: list[dict[str, Any]] = [
    # A fallback without scales leaves the calibration of the rung above it alone.
    {
        "optimization": {
            "quantization": {"format": "INT8", "calibration": {"samples": 8}},
            "fallbacks": [{"quantization": DYNAMIC}, {"quantization": {"format": "None"}}],
        }
    },
    # The calibration of a first rung that needs none is for the fallback that does.
    {
        "optimization": {
            "quantization": {**DYNAMIC, "calibration": {"samples": 8}},
            "fallbacks": [{"quantization": {"format": "INT8", "method": "MinMax"}}],
        }
    },
    {"optimization": {"quantization": {"granularity": "PerTensor", "exclude": ["pooler"]}}},
    {
        "quality": {
            "metric": "SpearmanCorrelation",
            "dataset": {**DATA, "columns": {"text": "a", "textPair": "b", "score": "s"}},
        }
    },
    {"batching": {"mode": "None", "maxQueueSize": 32, "queueTimeoutMilliseconds": 100}},
    {"scaling": {"mode": "External"}},
    {
        "scaling": {
            "mode": "Objectives",
            "minReplicas": 2,
            "maxReplicas": 4,
            "attainment": 0.9,
            "objectives": {"latencyMilliseconds": {"p95": 50}},
        }
    },
]


@pytest.mark.parametrize(("spec", "field"), NOT_AVAILABLE + WITHOUT_EFFECT, ids=str)
def test_a_field_without_behaviour_is_refused_by_name(spec: dict[str, Any], field: str) -> None:
    finding = drafted(snapshot(spec), acceptance, class_choice).findings["Accepted"]
    assert (finding.status, finding.reason) == ("False", "FeatureNotAvailable")
    assert f"{field}:" in finding.message or f"{field}." in finding.message


@pytest.mark.parametrize("spec", ACTED_ON, ids=str)
def test_a_field_with_behaviour_is_accepted(spec: dict[str, Any]) -> None:
    finding = drafted(snapshot(spec), acceptance, class_choice).findings["Accepted"]
    assert finding.holds, finding.message


def test_every_missing_feature_is_named_at_once() -> None:
    spec = {"batching": {"mode": "Continuous"}, "runtime": {"kvCache": {}}, "scaling": {"minReplicas": 0}}
    message = drafted(snapshot(spec), acceptance).findings["Accepted"].message
    assert all(field in message for field in ("batching.mode", "runtime.kvCache", "scaling.minReplicas"))


def test_a_canary_needs_a_gateway_that_gives_it_its_share() -> None:
    spec = {"rollout": {"strategy": "Canary", "canary": {"steps": [{"weight": 5, "seconds": 60}]}}}
    assert drafted(snapshot(spec), acceptance).findings["Accepted"].holds
    alone = drafted(snapshot(spec, operator_settings=settings(gateways=())), acceptance).findings["Accepted"]
    assert (alone.status, alone.reason) == ("False", "FeatureNotAvailable")
    assert alone.message.startswith("rollout.canary: ")


def test_a_malformed_object_is_refused_and_not_a_crash() -> None:
    finding = drafted(snapshot({"quality": {"maxDrop": "much"}}), acceptance, class_choice).findings["Accepted"]
    assert (finding.status, finding.reason) == ("False", "InvalidSpec")
    assert "quality.maxDrop" in finding.message


def test_the_first_class_that_has_every_format_is_taken() -> None:
    poor = accelerator_class("poor", formats=["FP16"])
    spec = {"hardware": {"acceleratorClasses": ["poor", "cpu"]}}
    draft = drafted(snapshot(spec, classes=(poor, accelerator_class())), acceptance, class_choice)
    assert draft.accepted
    assert draft.accelerator_class is not None
    assert draft.accelerator_class.metadata.name == "cpu"


def test_formats_that_no_class_has_are_named_with_what_there_is() -> None:
    spec = {"optimization": {"quantization": {"format": "FP8"}}}
    finding = drafted(snapshot(spec), acceptance, class_choice).findings["Accepted"]
    assert finding.reason == "FormatNotSupported"
    assert "class cpu lacks FP8 (it has INT8, FP16, BF16)" in finding.message


def test_the_plain_model_runs_on_any_class() -> None:
    spec = {"optimization": {"quantization": {"format": "None"}}}
    draft = drafted(snapshot(spec, classes=(accelerator_class(formats=["FP16"]),)), acceptance, class_choice)
    assert draft.accepted


def test_a_missing_class_is_named_even_when_another_would_do() -> None:
    spec = {"hardware": {"acceleratorClasses": ["cpu", "h100"]}}
    finding = drafted(snapshot(spec), acceptance).findings["Accepted"]
    assert finding.reason == "AcceleratorClassNotFound"
    assert "h100" in finding.message


def test_a_backend_that_lacks_the_vendor_is_refused() -> None:
    spec = {"hardware": {"acceleratorClasses": ["nvidia-l4"]}, "engine": {"backend": "OpenVINO"}}
    finding = drafted(snapshot(spec, classes=(gpu_class(),)), acceptance, class_choice).findings["Accepted"]
    assert (finding.status, finding.reason) == ("False", "FeatureNotAvailable")
