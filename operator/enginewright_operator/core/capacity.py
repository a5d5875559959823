"""Whether the replicas that are to come fit on what the nodes of the class have left, and by how much they do not.

Replicas are created all the same: counts are a minute old at most, and autoscalers of nodes act on pods that wait.
"""

from __future__ import annotations

import math

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.optimized_model import OptimizedModelSpec

from .draft import Draft
from .drift import quantity
from .engines import Running


def shortfall(draft: Draft, present: Running | None, size: int) -> str | None:
    """What is missing for `size` replicas of the target, in one sentence; None when they fit or nothing was counted."""
    spec, accelerator = draft.spec, draft.accelerator_class
    if spec is None or accelerator is None or accelerator.spec.resource is None:
        return None
    each, counted = units_of_a_replica(spec, accelerator), accelerator.status
    if each == 0 or counted.nodes == 0:
        return None
    free = max(0, counted.allocatable - counted.in_use)
    missing = _unplaced(present, size) * each - free
    if missing <= 0:
        return None
    name = accelerator.spec.resource.name
    hint = "" if spec.rollout.max_surge == 0 else "; add nodes, or replace in place with rollout.maxSurge 0"
    return (
        f"{_unplaced(present, size)} more replicas take {each} x {name} each, class {accelerator.metadata.name} has "
        f"{free} of {counted.allocatable} free on {counted.nodes} nodes: {missing} short{hint}"
    )


def _unplaced(present: Running | None, size: int) -> int:
    """Replicas that have no node yet: those on one are counted as in use."""
    if present is None:
        return size
    waiting = present.cause is not None and present.cause.reason == "Unschedulable"
    return max(0, size - (present.ready if waiting else present.existing))


def units_of_a_replica(spec: OptimizedModelSpec, accelerator: AcceleratorClass) -> int:
    """Accelerators of the class that one replica takes; a CPU replica that reserves nothing takes none."""
    resource = accelerator.spec.resource
    if accelerator.spec.vendor != "cpu" or resource is None:
        return spec.hardware.accelerators_per_replica
    chosen = spec.placement.resources
    reserved = quantity(chosen.requests.get("cpu", chosen.limits.get("cpu", "0")))
    return math.ceil(reserved / resource.quantity) if reserved else 0
