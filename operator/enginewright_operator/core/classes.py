"""Status of an AcceleratorClass: how many accelerators its nodes have, and how many are taken."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from enginewright_api.accelerator_class import AcceleratorClass, AcceleratorClassStatus
from enginewright_api.errors import first_problem

from .conditions import FALSE, Finding, is_false, is_true, merged
from .drift import quantity
from .effects import Object, PatchStatus, Plan, Reference
from .reading import mapping, objects, parsed
from .snapshot import ClassSnapshot
from .status_diff import status_patch

HAS_NODES = "HasNodes"
"""Condition of a class: whether a pod could have what it asks for there, were nothing taken; and since when."""


def has_nodes(accelerator: AcceleratorClass) -> bool | None:
    """What the condition says; None before the nodes were counted."""
    found = next((item for item in accelerator.status.conditions if item.type == HAS_NODES), None)
    return None if found is None else found.status is not FALSE


def plan_class(snapshot: ClassSnapshot, now: datetime) -> Plan:
    """Effects for one AcceleratorClass."""
    manifest = snapshot.manifest
    if manifest["metadata"].get("deletionTimestamp"):
        return Plan()
    generation = int(manifest["metadata"].get("generation", 1))
    try:
        accelerator = parsed(AcceleratorClass.of, manifest)
    except ValidationError as error:
        problem = first_problem(error, "spec")
        findings = [("Ready", is_false("InvalidSpec", problem)), ("Stalled", is_true("InvalidSpec", problem))]
        status = AcceleratorClassStatus(
            observed_generation=generation, conditions=merged(findings, [], generation=generation, now=now)
        )
    else:
        status = _status(accelerator, snapshot, generation, now)
    patch = status_patch(manifest.get("status", {}), status.wire())
    if not patch:
        return Plan()
    return Plan((PatchStatus(Reference.to(manifest), patch, manifest["metadata"].get("uid")),))


def _status(
    accelerator: AcceleratorClass, snapshot: ClassSnapshot, generation: int, now: datetime
) -> AcceleratorClassStatus:
    selector = accelerator.spec.scheduling.node_selector
    matching = [node for node in snapshot.nodes if _matches(node, selector)]
    nodes = [node for node in matching if _is_ready(node)]
    names = {node["metadata"]["name"] for node in nodes}
    resource = accelerator.spec.resource
    allocatable = in_use = 0
    if resource is not None:
        units = sum(_units(node.get("status", {}).get("allocatable", {}), resource.name) for node in nodes)
        allocatable = int(units // resource.quantity)
        taken = sum(_requested(pod, resource.name) for pod in snapshot.pods if _occupies(pod, names))
        in_use = -int(-taken // resource.quantity)
    lost = f", {len(matching) - len(nodes)} of them not ready" if len(nodes) < len(matching) else ""
    message = f"{len(matching)} nodes match{lost}, {in_use} of {allocatable} accelerators are taken"
    # Ready says that they were counted: a cluster need not have nodes of each class that it knows.
    findings = [("Ready", is_true("Counted", message)), (HAS_NODES, _has_nodes(accelerator, len(nodes), allocatable))]
    return AcceleratorClassStatus(
        observed_generation=generation,
        conditions=merged(findings, accelerator.status.conditions, generation=generation, now=now),
        nodes=len(nodes),
        allocatable=allocatable,
        in_use=in_use,
    )


def _has_nodes(accelerator: AcceleratorClass, nodes: int, allocatable: int) -> Finding:
    if nodes == 0:
        return is_false("NoNodes", "no node that matches is ready")
    resource = accelerator.spec.resource
    if resource is not None and allocatable == 0:
        return is_false("NothingAllocatable", f"no node offers {resource.name}; does its device plugin run?")
    return is_true("NodesReady")


def _is_ready(node: Object) -> bool:
    """A node that stopped reporting keeps what it had allocatable, and nothing starts on it."""
    conditions = objects(mapping(node, "status").get("conditions"))
    return all(item.get("status") == "True" for item in conditions if item.get("type") == "Ready")


def _matches(node: Object, selector: Mapping[str, str]) -> bool:
    labels = node["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in selector.items())


def _occupies(pod: Object, nodes: set[str]) -> bool:
    finished = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return pod.get("spec", {}).get("nodeName") in nodes and not finished


def _requested(pod: Object, resource: str) -> float:
    containers = pod.get("spec", {}).get("containers", [])
    return sum(_units(_requests(container), resource) for container in containers)


def _requests(container: Mapping[str, Any]) -> Mapping[str, Any]:
    found = container.get("resources", {})
    return {**found.get("limits", {}), **found.get("requests", {})}


def _units(amounts: Mapping[str, Any], resource: str) -> float:
    value = quantity(str(amounts.get(resource, "0")))
    return float(value) if value is not None else 0.0
