"""Which keys a change concerns. Handlers enqueue keys and do nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from enginewright_api.names import LABEL_BUILD_KEY, LABEL_MODEL, MANAGED_BY, engine_build_name
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    CONFIG_MAP,
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    LEADER_WORKER_SET,
    OPTIMIZED_MODEL,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    EventType,
    Kind,
    Object,
    WatchEvent,
)

from ..core.classes import HAS_NODES
from ..core.reading import mapping, objects, texts
from .waiting import Key

MANAGED = {"app.kubernetes.io/managed-by": MANAGED_BY}
WATCHED: tuple[tuple[Kind, dict[str, str] | None], ...] = (
    (ACCELERATOR_CLASS, None),
    (OPTIMIZED_MODEL, None),
    (ENGINE_BUILD, None),
    (JOB, MANAGED),
    (DEPLOYMENT, MANAGED),
    (POD, MANAGED),
    (SERVICE, MANAGED),
    (CONFIG_MAP, MANAGED),
    (POD_DISRUPTION_BUDGET, MANAGED),
    (LEADER_WORKER_SET, MANAGED),
)
"""Kinds and the labels that their watch is limited to."""
ADD_ONS = (LEADER_WORKER_SET,)
"""Kinds that a cluster may lack."""


@dataclass
class Triggers:
    """Knows which models ask for which classes, so that a new class wakes those that wait for it."""

    _classes_of: dict[Key, frozenset[str]] = field(default_factory=dict)
    _class_facts: dict[str, tuple[object, object]] = field(default_factory=dict)

    def keys(self, kind: Kind, event: WatchEvent) -> list[Key]:
        """Keys that have to be visited because of one change."""
        match kind.kind:
            case "OptimizedModel":
                return self._model(event)
            case "EngineBuild":
                return [_key(ENGINE_BUILD, event), *_owners(event)]
            case "AcceleratorClass":
                return [_key(ACCELERATOR_CLASS, event), *self._waiting_for(event)]
            case _:
                return list(_by_label(event))

    @property
    def models(self) -> Iterable[Key]:
        """All models seen."""
        return tuple(self._classes_of)

    def _model(self, event: WatchEvent) -> list[Key]:
        key = _key(OPTIMIZED_MODEL, event)
        if event.type is EventType.DELETED:
            self._classes_of.pop(key, None)
            return []
        hardware = mapping(event.object, "spec", "hardware")
        self._classes_of[key] = frozenset(texts(hardware.get("acceleratorClasses")))
        return [key]

    def _waiting_for(self, event: WatchEvent) -> list[Key]:
        """Models of a class whose facts changed, and those that list others beside it when its nodes come or go.

        Its counts change all the time and concern nobody.
        """
        name = event.object["metadata"]["name"]
        known, facts = self._class_facts.pop(name, None), _facts(event.object)
        if event.type is not EventType.DELETED:
            self._class_facts[name] = facts
            if known == facts:
                return []
        only_nodes = event.type is not EventType.DELETED and known is not None and known[0] == facts[0]
        least = 2 if only_nodes else 1
        return [key for key, classes in self._classes_of.items() if name in classes and len(classes) >= least]


def _facts(accelerator_class: Object) -> tuple[object, object]:
    """Generation, and whether there are nodes (None before they were counted)."""
    conditions = objects(mapping(accelerator_class, "status").get("conditions"))
    has_nodes = next((item.get("status") for item in conditions if item.get("type") == HAS_NODES), None)
    return accelerator_class["metadata"].get("generation"), has_nodes


def _key(kind: Kind, event: WatchEvent) -> Key:
    metadata = event.object["metadata"]
    return Key(kind.kind, metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])


def _owners(event: WatchEvent) -> list[Key]:
    metadata = event.object["metadata"]
    return [
        Key(OPTIMIZED_MODEL.kind, metadata["namespace"], owner["name"])
        for owner in metadata.get("ownerReferences", [])
        if owner.get("kind") == OPTIMIZED_MODEL.kind
    ]


def _by_label(event: WatchEvent) -> Iterable[Key]:
    metadata = event.object["metadata"]
    labels, namespace = metadata.get("labels", {}), metadata.get("namespace", "")
    if LABEL_MODEL in labels:
        yield Key(OPTIMIZED_MODEL.kind, namespace, labels[LABEL_MODEL])
    elif LABEL_BUILD_KEY in labels:
        yield Key(ENGINE_BUILD.kind, namespace, engine_build_name(labels[LABEL_BUILD_KEY]))
