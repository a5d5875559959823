"""Status of an AcceleratorClass: how many accelerators its nodes have, and how many are taken."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from enginewright_api.accelerator_class import AcceleratorClass, AcceleratorClassStatus
from enginewright_api.errors import first_problem

from .conditions import is_false, is_true, merged
from .drift import quantity
from .effects import Object, PatchStatus, Plan, Reference
from .reading import parsed
from .snapshot import ClassSnapshot
from .status_diff import status_patch


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
    nodes = [node for node in snapshot.nodes if _matches(node, selector)]
    names = {node["metadata"]["name"] for node in nodes}
    resource = accelerator.spec.resource
    allocatable = in_use = 0
    if resource is not None:
        units = sum(_units(node.get("status", {}).get("allocatable", {}), resource.name) for node in nodes)
        allocatable = int(units // resource.quantity)
        taken = sum(_requested(pod, resource.name) for pod in snapshot.pods if _occupies(pod, names))
        in_use = -int(-taken // resource.quantity)
    message = f"{len(nodes)} nodes match, {in_use} of {allocatable} accelerators are taken"
    findings = [("Ready", is_true("Counted", message))]
    return AcceleratorClassStatus(
        observed_generation=generation,
        conditions=merged(findings, accelerator.status.conditions, generation=generation, now=now),
        nodes=len(nodes),
        allocatable=allocatable,
        in_use=in_use,
    )


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
