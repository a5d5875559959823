"""How many replicas of an engine may be away while nodes are drained."""

from __future__ import annotations

from enginewright_api.names import LABEL_ARTIFACT, LABEL_MODEL, child_labels

from ..effects import Object
from ..snapshot import ModelSnapshot

BUDGET = "disruption"
"""Component label of budgets."""


def disruption_budget(snapshot: ModelSnapshot, workload: Object) -> Object:
    """One pod of an engine at a time. It goes with the Deployment or LeaderWorkerSet, which owns it.

    One budget an engine, not one a model: pods of an engine that never gets ready must not hold up the drain of nodes
    where the other one serves. Workers of a group count as well, since their group goes with each of them.
    """
    metadata = workload["metadata"]
    label = metadata["labels"][LABEL_ARTIFACT]
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": metadata["name"],
            "namespace": snapshot.namespace,
            "labels": child_labels(name=snapshot.name, component=BUDGET, model=snapshot.name, artifact=label),
            "ownerReferences": [
                {
                    "apiVersion": workload["apiVersion"],
                    "kind": workload["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                }
            ],
        },
        "spec": {
            # Not minAvailable: it would have to follow the number of replicas.
            "maxUnavailable": 1,
            # A pod that does not answer anyway must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {LABEL_MODEL: snapshot.name, LABEL_ARTIFACT: label}},
        },
    }
