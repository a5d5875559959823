"""The operator's metrics: what they count, and that they forget what is gone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from enginewright_api.errors import ResourceError
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.kubernetes_connection import Call
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    ENGINE_BUILD,
    OPTIMIZED_MODEL,
    POD,
    EventType,
    InvalidError,
    Kind,
    Ref,
    UnavailableError,
    WatchEvent,
)
from enginewright_operator.shell.inventory import Inventory
from enginewright_operator.shell.metrics import Metrics
from enginewright_operator.shell.operator import Operator
from enginewright_operator.shell.queueing import Queue
from enginewright_operator.shell.waiting import Key
from tests.scenarios.world import Shifted, World

KEY = Key("OptimizedModel", "default", "search")


class Told:
    """An inventory, and short ways to tell and ask it."""

    def __init__(self) -> None:
        self.inventory, self.registry = Inventory(), CollectorRegistry()
        self.registry.register(self.inventory)

    def model(self, name: str, *, uid: str = "1", gone: bool = False, **conditions: tuple[str, str]) -> None:
        found = [{"type": kind, "status": status, "reason": why} for kind, (status, why) in conditions.items()]
        self.tell(OPTIMIZED_MODEL, name, {"conditions": found}, uid=uid, gone=gone)

    def tell(self, kind: Kind, name: str, status: dict[str, Any], *, uid: str = "1", gone: bool = False) -> None:
        metadata = {"name": name, "uid": uid} | ({"namespace": "a"} if kind.namespaced else {})
        type_ = EventType.DELETED if gone else EventType.MODIFIED
        self.inventory.saw(kind, WatchEvent(type_, {"metadata": metadata, "status": status}))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"enginewright_operator_{name}", labels)


def test_models_are_counted_by_condition_and_named_while_not_ready() -> None:
    told = Told()
    told.model("new")
    told.model("good", Ready=("True", "Ready"), Built=("True", "Built"))
    told.model("bad", Ready=("False", "BuildFailed"), Built=("False", "BuildFailed"))
    assert told.value("models", condition="Ready", status="True", reason="Ready") == 1
    assert told.value("models", condition="Built", status="False", reason="BuildFailed") == 1
    assert told.value("model_not_ready", model="a/bad", reason="BuildFailed") == 1
    assert told.value("model_not_ready", model="a/new", reason="NotVisited") == 1
    assert told.value("model_not_ready", model="a/good", reason="Ready") is None
    told.model("bad", gone=True)
    assert told.value("model_not_ready", model="a/bad", reason="BuildFailed") is None
    assert told.value("models", condition="Built", status="False", reason="BuildFailed") is None


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (("Unknown", "Progressing"), ("True", "RolledOut"), "Completed"),
        (("Unknown", "Progressing"), ("False", "ProgressDeadlineExceeded"), "ProgressDeadlineExceeded"),
        (("False", "ProgressDeadlineExceeded"), ("False", "EngineCrashed"), "EngineCrashed"),
        (("True", "RolledOut"), ("True", "RolledOut"), None),
        (("True", "RolledOut"), ("Unknown", "Progressing"), None),
        (("Unknown", "WaitingForEngine"), ("False", "NoEngine"), None),
        (("Unknown", "Progressing"), ("False", "Paused"), None),
    ],
)
def test_a_rollout_is_counted_when_it_ends(
    before: tuple[str, str], after: tuple[str, str], outcome: str | None
) -> None:
    told = Told()
    told.model("m", RolledOut=before)
    told.model("m", RolledOut=after)
    told.model("m", RolledOut=after)
    total = sum(
        sample.value
        for family in told.inventory.collect()
        for sample in family.samples
        if sample.name == "enginewright_operator_rollouts_total"
    )
    assert total == (outcome is not None)
    if outcome is not None:
        assert told.value("rollouts_total", outcome=outcome) == 1


def test_what_stood_before_the_operator_came_is_no_rollout_of_its_time() -> None:
    told = Told()
    told.model("m", RolledOut=("True", "RolledOut"))
    told.model("m", uid="2", RolledOut=("Unknown", "Progressing"))
    told.model("m", uid="3", RolledOut=("True", "RolledOut"))
    assert told.value("rollouts_total", outcome="Completed") == 0


def test_builds_and_accelerators() -> None:
    told = Told()
    told.tell(ENGINE_BUILD, "one", {"phase": "Succeeded"})
    told.tell(ENGINE_BUILD, "two", {})
    told.tell(ACCELERATOR_CLASS, "h100", {"allocatable": 16, "inUse": 12})
    told.tell(POD, "ignored", {"phase": "Running"})
    assert told.value("builds", phase="Succeeded") == 1
    assert told.value("builds", phase="Queued") == 1
    assert told.value("builds", phase="Running") is None
    assert told.value("accelerators", **{"class": "h100", "state": "allocatable"}) == 16
    assert told.value("accelerators", **{"class": "h100", "state": "in_use"}) == 12


def test_a_broken_watch_is_forgotten_until_it_tells_anew() -> None:
    told = Told()
    told.tell(ENGINE_BUILD, "one", {"phase": "Failed"})
    told.inventory.forget(ENGINE_BUILD)
    assert told.value("builds", phase="Failed") is None


def test_requests_to_the_api_server() -> None:
    metrics = Metrics()
    metrics.called(Call("patch", "optimizedmodels", 409, 0.02))
    metrics.called(Call("list", "pods", 0, 30.0))
    value = metrics.registry.get_sample_value
    name = "enginewright_operator_api_requests_total"
    assert value(name, {"verb": "patch", "resource": "optimizedmodels", "code": "409"}) == 1
    assert value(name, {"verb": "list", "resource": "pods", "code": "0"}) == 1
    seconds = {"verb": "list", "resource": "pods"}
    assert value("enginewright_operator_api_request_seconds_sum", seconds) == 30.0


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (UnavailableError("Unreachable", "no answer"), "Transient"),
        (InvalidError("Invalid", "spec.x: unknown"), "Deterministic"),
        (ResourceError("DiskFull", "no room"), "Resource"),
        (KeyError("x"), "Unexpected"),
    ],
)
def test_failed_visits_are_counted_by_what_helps(error: Exception, failure_class: str) -> None:
    metrics = Metrics()
    metrics.failed("EngineBuild", error)
    labels = {"kind": "EngineBuild", "class": failure_class, "error": type(error).__name__}
    assert metrics.registry.get_sample_value("enginewright_operator_reconcile_errors_total", labels) == 1


async def test_the_queue_tells_how_late_it_is() -> None:
    late: list[tuple[Key, float]] = []
    release = asyncio.Event()

    async def handle(key: Key) -> None:
        await release.wait()

    queue = Queue(handle, workers=1, begun=lambda key, seconds: late.append((key, seconds)))
    assert queue.late_seconds == 0.0
    working = asyncio.create_task(queue.run())
    queue.add(KEY)
    queue.add(Key("EngineBuild", "default", "second"))
    queue.add(Key("EngineBuild", "default", "later"), after_seconds=60.0)
    await asyncio.sleep(0.05)
    assert [key for key, _ in late] == [KEY]
    assert 0.04 < queue.late_seconds < 5.0
    release.set()
    await asyncio.sleep(0.05)
    assert len(late) == 2
    assert late[1][1] > 0.04
    assert queue.late_seconds == 0.0, "what is not due yet does not wait"
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_a_blocked_event_loop_shows() -> None:
    metrics = Metrics()
    measuring = asyncio.create_task(metrics.measure_lag())
    await asyncio.sleep(0)
    time.sleep(0.6)  # noqa: ASYNC251 - what must never happen
    await asyncio.sleep(0.01)
    measuring.cancel()
    value = metrics.registry.get_sample_value
    assert value("enginewright_operator_event_loop_lag_seconds_bucket", {"le": "0.1"}) == 0
    assert value("enginewright_operator_event_loop_lag_seconds_count") == 1


async def test_a_model_that_becomes_ready_shows_in_the_metrics() -> None:
    """The whole operator: watches, queue, visits, and who leads."""
    metrics = Metrics()
    world = World(FakeCluster(), clock=Shifted())
    operator = Operator(world.cluster, world.store, world.settings, world.clock, metrics=metrics)
    value = metrics.registry.get_sample_value
    ready = {"condition": "Ready", "status": "True", "reason": "Ready"}
    assert value("enginewright_operator_leading") == 0
    working = asyncio.create_task(operator.run())
    await world.give_class()
    await world.apply()
    async with asyncio.timeout(10):
        while value("enginewright_operator_models", ready) != 1:
            await world.step()
            await asyncio.sleep(0.01)
    assert value("enginewright_operator_leading") == 1
    assert value("enginewright_operator_rollouts_total", {"outcome": "Completed"}) == 1
    assert value("enginewright_operator_builds", {"phase": "Succeeded"}) == 1
    assert (value("enginewright_operator_queue_seconds_count", {"kind": "OptimizedModel"}) or 0) > 0
    await world.cluster.delete(Ref(OPTIMIZED_MODEL, "search", "default"))
    async with asyncio.timeout(5):
        while value("enginewright_operator_models", ready) is not None:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert value("enginewright_operator_leading") == 0
