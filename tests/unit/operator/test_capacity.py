"""What the nodes of a class lack for the replicas that are to come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.capacity import shortfall
from enginewright_operator.core.engines import Running
from enginewright_operator.core.pod_causes import Cause
from tests.scenarios.models import gpu_class
from tests.unit.operator.snapshots import drafted, snapshot

SPEC: dict[str, Any] = {
    "task": "TextGeneration",
    "optimization": {"quantization": {"format": "FP16"}},
    "engine": {"backend": "TensorRTLLM"},
    "hardware": {"acceleratorClasses": ["nvidia-l4"], "acceleratorsPerReplica": 2},
    "parallelism": {"tensor": 2},
}


def missing(*, size: int, allocatable: int, in_use: int, nodes: int = 2, present: Running | None = None) -> str | None:
    """For replicas of two GPUs each."""
    counted = {**gpu_class(), "status": {"nodes": nodes, "allocatable": allocatable, "inUse": in_use}}
    found = snapshot(SPEC, classes=(counted,))
    draft = drafted(found, acceptance)
    assert draft.spec is not None
    return shortfall(replace(draft, accelerator_class=found.classes["nvidia-l4"]), present, size)


def running(existing: int, ready: int, cause: Cause | None = None) -> Running:
    """The target's Deployment."""
    return Running({}, "new", existing, existing, ready, True, True, cause)


def test_the_shortfall_is_named_with_its_figures() -> None:
    assert missing(size=2, allocatable=8, in_use=7) == (
        "2 more replicas take 2 x nvidia.com/gpu each, class nvidia-l4 has 1 of 8 free on 2 nodes: 3 short; "
        "add nodes, or replace in place with rollout.maxSurge 0"
    )


@pytest.mark.parametrize(
    ("size", "in_use", "present", "lacks"),
    [
        (2, 4, None, False),
        (2, 5, None, True),
        (2, 6, running(1, 1), False),
        (2, 8, running(2, 0), False),
        (2, 8, running(2, 1, Cause("Unschedulable", "0/2 nodes")), True),
        (1, 9, None, True),
    ],
)
def test_only_replicas_without_a_node_need_one(size: int, in_use: int, present: Running | None, *, lacks: bool) -> None:
    assert (missing(size=size, allocatable=8, in_use=in_use, present=present) is not None) == lacks


def test_a_class_that_nobody_counted_lacks_nothing() -> None:
    assert missing(size=2, allocatable=0, in_use=0, nodes=0) is None
