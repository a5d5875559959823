"""Over how many nodes one replica is spread, and what has to hold for more than one.

A replica that takes more accelerators than a node of its class has is a group of pods, one a node, kept by a
LeaderWorkerSet (https://lws.sigs.k8s.io): its leader answers requests, its workers hold the other ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.serving_spec import TensorRTLLM, TensorRTLLMFlavor

from .acceptance import ACCEPTED
from .conditions import Finding, is_false
from .draft import Draft
from .effects import RequeueAfter

NOT_INSTALLED = "LeaderWorkerSetNotInstalled"
LOOK_AGAIN_SECONDS = 60.0
"""How often it is looked whether the add-on has come."""
LONGEST_NAME = 38
"""Of a model: the names of a group's pods go on from it, and they have to fit into labels of 63 characters."""

_INSTALL = (
    "kubectl apply --server-side --filename"
    " https://github.com/kubernetes-sigs/lws/releases/latest/download/manifests.yaml"
)


@dataclass(frozen=True, slots=True)
class Spread:
    """One replica: `accelerators` on each of `nodes`."""

    nodes: int
    accelerators: int


def spread_of(spec: OptimizedModelSpec, accelerator: AcceleratorClass) -> Spread:
    """As few nodes as have enough accelerators; one where the class does not say how many a node has."""
    count, most = spec.hardware.accelerators_per_replica, accelerator.spec.accelerators_per_node
    nodes = math.ceil(count / most) if most is not None else 1
    return Spread(nodes, count // nodes)


def spreading(draft: Draft) -> Draft:
    """Withdraws Accepted where one replica needs several nodes and cannot have them."""
    spec, accelerator = draft.spec, draft.accelerator_class
    if not draft.accepted or spec is None or accelerator is None or spread_of(spec, accelerator).nodes == 1:
        return draft
    refusal = _refusal(draft, spec, accelerator)
    if refusal is not None:
        return draft.found(ACCEPTED, refusal)
    if draft.snapshot.groups is not None:
        return draft
    message = f"{_sentence(spec, accelerator)}, by a LeaderWorkerSet, which this cluster does not know; {_INSTALL}"
    return draft.found(ACCEPTED, is_false(NOT_INSTALLED, message)).doing(RequeueAfter(LOOK_AGAIN_SECONDS))


def _refusal(draft: Draft, spec: OptimizedModelSpec, accelerator: AcceleratorClass) -> Finding | None:
    count, nodes = spec.hardware.accelerators_per_replica, spread_of(spec, accelerator).nodes
    if count % nodes:
        return is_false(
            "ParallelismMismatch",
            f"hardware.acceleratorsPerReplica: {_sentence(spec, accelerator)}, and each must have as many:"
            f" {count} cannot be divided by {nodes}",
        )
    if (spec.engine.tensor_rt_llm or TensorRTLLM()).flavor is TensorRTLLMFlavor.ENGINE:
        return is_false(
            "FeatureNotAvailable",
            f"engine.tensorRTLLM.flavor: {_sentence(spec, accelerator)}, and flavor Engine runs on one; use PyTorch",
        )
    if len(draft.snapshot.name) > LONGEST_NAME:
        return is_false(
            "InvalidSpec",
            f"metadata.name: {_sentence(spec, accelerator)}, whose names go on from it; take {LONGEST_NAME} characters"
            " at most",
        )
    return None


def _sentence(spec: OptimizedModelSpec, accelerator: AcceleratorClass) -> str:
    return (
        f"a replica of {spec.hardware.accelerators_per_replica} accelerators runs on"
        f" {spread_of(spec, accelerator).nodes} nodes of class {accelerator.metadata.name}"
        f" ({accelerator.spec.accelerators_per_node} each)"
    )
