"""Which models are visited because a class changed."""

from __future__ import annotations

from typing import Any

from enginewright_cluster.port import ACCELERATOR_CLASS, OPTIMIZED_MODEL, EventType, WatchEvent
from enginewright_operator.shell.triggers import Triggers
from tests.scenarios.models import accelerator_class, model


def woken(triggers: Triggers, *, generation: int = 1, has_nodes: str = "", type_: Any = EventType.MODIFIED) -> set[str]:
    """Models that an event of class `fast` wakes."""
    manifest = accelerator_class("fast")
    manifest["metadata"]["generation"] = generation
    if has_nodes:
        manifest["status"] = {"conditions": [{"type": "HasNodes", "status": has_nodes}], "inUse": 3}
    keys = triggers.keys(ACCELERATOR_CLASS, WatchEvent(type_, manifest))
    return {key.name for key in keys if key.kind == OPTIMIZED_MODEL.kind}


def test_nodes_that_come_or_go_concern_models_that_may_run_elsewhere() -> None:
    triggers = Triggers()
    for name, listed in (("one", ["fast"]), ("either", ["slow", "fast"]), ("other", ["slow", "cpu"])):
        item = model(name, hardware={"acceleratorClasses": listed})
        triggers.keys(OPTIMIZED_MODEL, WatchEvent(EventType.ADDED, item))
    assert woken(triggers, type_=EventType.ADDED) == {"one", "either"}
    assert woken(triggers) == set()
    assert woken(triggers, has_nodes="False") == {"either"}
    assert woken(triggers, has_nodes="False") == set(), "counts change all the time"
    assert woken(triggers, has_nodes="True") == {"either"}
    assert woken(triggers, has_nodes="True", generation=2) == {"one", "either"}
    assert woken(triggers, has_nodes="True", generation=2, type_=EventType.DELETED) == {"one", "either"}
    assert woken(triggers, has_nodes="True", generation=2, type_=EventType.ADDED) == {"one", "either"}
