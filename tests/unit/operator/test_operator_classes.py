"""Status of an AcceleratorClass: accelerators of its nodes, and how many are taken."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from enginewright_operator.core.classes import plan_class
from enginewright_operator.core.drift import covers, drifted, quantity, stamped
from enginewright_operator.core.effects import PatchStatus
from enginewright_operator.core.snapshot import ClassSnapshot
from enginewright_operator.core.status_diff import status_patch
from tests.scenarios.models import accelerator_class, gpu_class
from tests.unit.operator.snapshots import NOW

NODES: tuple[dict[str, Any], ...] = (
    {"metadata": {"name": "g1", "labels": {"gpu": "l4"}}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}},
    {"metadata": {"name": "g2", "labels": {"gpu": "l4"}}, "status": {"allocatable": {"nvidia.com/gpu": "4"}}},
    {"metadata": {"name": "c1", "labels": {}}, "status": {"allocatable": {"cpu": "3920m"}}},
)


def pod(node: str, amount: str, phase: str = "Running") -> dict[str, Any]:
    """A pod that holds GPUs."""
    container = {"resources": {"limits": {"nvidia.com/gpu": amount}}}
    return {"metadata": {}, "spec": {"nodeName": node, "containers": [container]}, "status": {"phase": phase}}


def counted(manifest: dict[str, Any], *pods: dict[str, Any]) -> dict[str, Any]:
    """Status that is written."""
    manifest["metadata"] |= {"uid": "u", "generation": 1}
    effects = plan_class(ClassSnapshot(manifest, NODES, pods), NOW).effects
    assert len(effects) == 1
    assert isinstance(effects[0], PatchStatus)
    return dict(effects[0].patch)


def test_accelerators_are_counted_on_matching_nodes() -> None:
    status = counted(gpu_class(), pod("g1", "2"), pod("g2", "1"), pod("c1", "5"), pod("g1", "4", "Succeeded"))
    assert (status["nodes"], status["allocatable"], status["inUse"]) == (2, 12, 3)
    assert status["conditions"][0]["status"] == "True"


def ready(node: dict[str, Any], status: str) -> dict[str, Any]:
    """The node as it reports."""
    return {**node, "status": {**node["status"], "conditions": [{"type": "Ready", "status": status}]}}


@pytest.mark.parametrize(
    ("nodes", "has_nodes", "reason", "counts"),
    [
        (NODES, "True", "NodesReady", (2, 12)),
        ((ready(NODES[0], "Unknown"), ready(NODES[1], "True")), "True", "NodesReady", (1, 4)),
        ((ready(NODES[0], "Unknown"), ready(NODES[1], "False")), "False", "NoNodes", (0, 0)),
        (NODES[2:], "False", "NoNodes", (0, 0)),
        (({**NODES[0], "status": {"allocatable": {"cpu": "8"}}},), "False", "NothingAllocatable", (1, 0)),
    ],
)
def test_a_class_has_nodes_where_a_pod_could_run(
    nodes: tuple[dict[str, Any], ...], has_nodes: str, reason: str, counts: tuple[int, int]
) -> None:
    manifest = gpu_class()
    manifest["metadata"] |= {"uid": "u", "generation": 1}
    (effect,) = plan_class(ClassSnapshot(manifest, nodes), NOW).effects
    assert isinstance(effect, PatchStatus)
    status = {"nodes": 0, "allocatable": 0, **effect.patch}
    conditions = {item["type"]: item for item in status["conditions"]}
    assert (conditions["HasNodes"]["status"], conditions["HasNodes"]["reason"]) == (has_nodes, reason)
    assert (status["nodes"], status["allocatable"]) == counts
    assert conditions["Ready"]["status"] == "True", "a cluster need not have nodes of each class"


def test_since_when_a_class_has_no_nodes_is_told() -> None:
    manifest = gpu_class()
    manifest["status"] = counted(manifest)
    later = NOW + timedelta(seconds=90)
    for moment in (later, later + timedelta(seconds=60)):
        for effect in plan_class(ClassSnapshot(manifest), moment).effects:
            assert isinstance(effect, PatchStatus)
            manifest["status"] |= dict(effect.patch)
    conditions = {item["type"]: item for item in manifest["status"]["conditions"]}
    assert conditions["HasNodes"]["lastTransitionTime"] == "2026-01-01T00:01:30Z"
    assert conditions["Ready"]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_a_slice_of_a_device_counts_by_quantity() -> None:
    status = counted(gpu_class(resource={"name": "nvidia.com/gpu", "quantity": 4}), pod("g1", "2"))
    assert (status["allocatable"], status["inUse"]) == (3, 1)


def test_a_cpu_class_counts_whole_cpus() -> None:
    assert counted(accelerator_class())["allocatable"] == 3


def test_nothing_is_written_twice() -> None:
    manifest = gpu_class()
    manifest["status"] = counted(manifest)
    assert plan_class(ClassSnapshot(manifest, NODES), NOW).effects == ()


def test_a_malformed_class_says_so() -> None:
    manifest = gpu_class(memoryGiB="much")
    status = counted(manifest)
    assert {item["type"]: item["reason"] for item in status["conditions"]}["Stalled"] == "InvalidSpec"


@pytest.mark.parametrize(
    ("observed", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": ""}, True),
        ({}, {"a": "x"}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"cpu": "1"}, {"cpu": "1000m"}, True),
        ({"memory": "4Gi"}, {"memory": "4096Mi"}, True),
        ({"memory": "4Gi"}, {"memory": "4G"}, False),
        ({"a": "text"}, {"a": "text"}, True),
        (None, {"a": {}}, False),
    ],
)
def test_drift(observed: Any, wanted: Any, same: bool) -> None:
    assert covers(observed, wanted) is same


def test_a_field_that_is_no_longer_rendered_is_drift() -> None:
    before = stamped({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}})
    after = stamped({"metadata": {"name": "x"}, "spec": {"a": 1}})
    assert drifted(before, after)
    assert not drifted(before, before)
    assert drifted(None, before)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1500m", 1.5), ("2Ki", 2048), ("3", 3), ("1e3", 1000), ("x", None), ("12e7345234", None), ("9e9999999k", None)],
)
def test_quantities(text: str, value: float | None) -> None:
    found = quantity(text)
    assert (None if found is None else float(found)) == value


@pytest.mark.parametrize(
    ("observed", "wanted", "patch"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}, {"a": {"y": None}}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({"scaling": {"desired": 1}}, {}, {}),
    ],
)
def test_status_patch(observed: dict[str, Any], wanted: dict[str, Any], patch: dict[str, Any]) -> None:
    assert status_patch(observed, wanted, foreign=("scaling",)) == patch
