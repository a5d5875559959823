"""Objects that were stored before their schema refused them: they are told apart, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.objects.metadata import ref_of
from enginewright_cluster.port import ENGINE_BUILD, OPTIMIZED_MODEL, Object
from enginewright_operator.core.snapshot import ModelSnapshot
from enginewright_operator.shell.metrics import Metrics
from enginewright_operator.shell.operator import COUNT_SECONDS, Operator
from tests.scenarios.models import SPEC, accelerator_class, gpu_class, model, settings
from tests.scenarios.virtual_time import LoopClock, VirtualTimeLoop
from tests.scenarios.world import World

DAMAGED_SPECS: dict[str, Any] = {
    "no spec": ...,
    "null": None,
    "text": "all of it",
    "hardware is text": SPEC | {"hardware": "cpu"},
    "hardware is null": SPEC | {"hardware": None},
    "classes is a number": SPEC | {"hardware": {"acceleratorClasses": 7}},
    "classes of objects": SPEC | {"hardware": {"acceleratorClasses": [{"name": "cpu"}]}},
    "rollout is a list": SPEC | {"rollout": []},
    "unknown task": SPEC | {"task": "Divination"},
    "two sources": SPEC | {"source": {**SPEC["source"], "objectStore": {"uri": "s3://bucket/x"}}},
    "replicas is text": SPEC | {"replicas": "three"},
}
DAMAGED_STATUSES: dict[str, Any] = {
    "text": "fine",
    "conditions is text": {"conditions": "all well"},
    "conditions without type": {"conditions": [{"status": "True"}]},
    "conditions of numbers": {"conditions": [1]},
    "phase is a number": {"phase": 7, "conditions": None},
    "rollout of nothing known": {"rollout": {"state": "Sideways", "weight": "half"}},
    "counts are text": {"allocatable": "many", "inUse": None},
}


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    made = VirtualTimeLoop()
    asyncio.set_event_loop(made)
    yield made
    made.end()
    asyncio.set_event_loop(None)


class Place:
    """The operator at work on a cluster that takes anything, with a model that is in order."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        clock = LoopClock(loop)
        self.cluster = FakeCluster(now=clock, admit=lambda item, old: dict(item))
        self.world = World(self.cluster, clock=clock)
        self.metrics = Metrics()
        self.clock = clock

    def run(self) -> None:
        """Until the good model is ready, then for as long as nothing more should happen."""
        self.loop.run(self.cluster.apply(accelerator_class(), field_manager="user"))
        self.loop.run(self.cluster.apply(model("good", replicas=1), field_manager="user"))
        operator = Operator(self.cluster, self.world.store, self.world.settings, self.clock, metrics=self.metrics)
        running = self.loop.create_task(operator.run())
        for _ in range(30):
            self.loop.run(asyncio.sleep(6))
            self.loop.run(self.world.step())
            if running.done():
                running.result()
        assert self.states("good")["Ready"] == "True"
        before = len(self.cluster.writes)
        self.loop.run(asyncio.sleep(3 * COUNT_SECONDS))
        assert self.cluster.writes[before:] == []
        assert not running.done()
        list(self.metrics.inventory.collect())

    def states(self, name: str) -> dict[str, str]:
        return {item["type"]: item["status"] for item in self._conditions(name)}

    def conditions(self, name: str) -> dict[str, str]:
        return {item["type"]: item["reason"] for item in self._conditions(name)}

    def _conditions(self, name: str) -> list[Object]:
        found = [item for item in self.cluster._rows.select(OPTIMIZED_MODEL, None) if item["metadata"]["name"] == name]
        return found[0]["status"]["conditions"]


@pytest.mark.parametrize("damage", DAMAGED_SPECS)
def test_a_model_whose_spec_is_damaged_says_so(loop: VirtualTimeLoop, damage: str) -> None:
    place = Place(loop)
    damaged = model("damaged")
    damaged["spec"] = DAMAGED_SPECS[damage]
    if damaged["spec"] is ...:
        del damaged["spec"]
    loop.run(place.cluster.create(damaged))
    place.run()
    assert place.conditions("damaged")["Accepted"] == "InvalidSpec"
    assert place.states("damaged")["Stalled"] == "True"


@pytest.mark.parametrize("damage", DAMAGED_STATUSES)
@pytest.mark.parametrize("kind", ["OptimizedModel", "EngineBuild", "AcceleratorClass"])
def test_a_status_that_cannot_be_read_counts_as_never_written(loop: VirtualTimeLoop, kind: str, damage: str) -> None:
    place = Place(loop)
    made: Object = {"OptimizedModel": model("other"), "AcceleratorClass": gpu_class()}.get(kind) or _build({})
    made = loop.run(place.cluster.create(made))
    place.cluster._rows.write(*_with_status(made, DAMAGED_STATUSES[damage]))
    place.run()
    if kind == "OptimizedModel":
        assert place.states("other")["Ready"] == "True"


@pytest.mark.parametrize("spec", [{}, None, "text", {"key": 7}], ids=str)
def test_a_damaged_build_stops_nobody(loop: VirtualTimeLoop, spec: Any) -> None:
    place = Place(loop)
    loop.run(place.cluster.create(_build(spec)))
    place.run()
    found = place.cluster._rows.select(ENGINE_BUILD, None)
    damaged = next(item for item in found if item["metadata"]["name"] == "eb-0123456789abcdef")
    assert {item["type"]: item["reason"] for item in damaged["status"]["conditions"]}["Ready"] == "InvalidSpec"


def test_a_damaged_build_of_a_models_own_is_named() -> None:
    snapshot = ModelSnapshot(model(), settings(), builds={"eb-0123456789abcdef": _build({"key": 7})})
    with pytest.raises(DeterministicError, match=r"EngineBuild eb-0123456789abcdef: spec.*delete it"):
        snapshot.build("eb-0123456789abcdef")


def _build(spec: Any) -> Object:
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "EngineBuild",
        "metadata": {"name": "eb-0123456789abcdef", "namespace": "default"},
        "spec": spec,
    }


def _with_status(item: Object, status: Any) -> tuple[Any, Object]:
    return ref_of(item), {**item, "status": status}
