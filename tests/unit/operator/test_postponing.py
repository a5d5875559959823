"""Statuses wait for the visit that follows at once, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from enginewright_api.evidence import EvidenceRequest
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import DEPLOYMENT, EVENT, OPTIMIZED_MODEL, Ref
from enginewright_operator.core.snapshot import Published
from enginewright_operator.shell.gathering import StoreLookup
from enginewright_operator.shell.operator import Operator
from enginewright_operator.shell.postponing import LEAST_TIMES, MOST_SECONDS, Postponing
from enginewright_operator.shell.waiting import Key
from tests.scenarios.evidence import artifact, evidence
from tests.scenarios.models import accelerator_class, model, settings
from tests.scenarios.virtual_time import LoopClock, VirtualTimeLoop
from tests.scenarios.world import Store

A, B = Key("OptimizedModel", "n", "a"), Key("OptimizedModel", "n", "b")


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    made = VirtualTimeLoop()
    asyncio.set_event_loop(made)
    yield made
    made.end()


class FullStore:
    """Every engine was built before."""

    async def find(self, key: str, requests: Sequence[EvidenceRequest]) -> Published | None:
        """As the operator looks them up."""
        return Published(artifact(key), tuple(evidence(request.digest) for request in requests))


def at_work(loop: VirtualTimeLoop, store: StoreLookup) -> FakeCluster:
    """An operator that knows the class `cpu` and nothing else. Nobody plays controllers or kubelet."""
    clock = LoopClock(loop)
    cluster = FakeCluster(now=clock)
    loop.run(cluster.apply(accelerator_class()))
    loop.create_task(Operator(cluster, store, settings(), clock).run())
    loop.run(asyncio.sleep(10))
    cluster.writes.clear()
    return cluster


def test_a_status_waits_where_another_visit_follows(loop: VirtualTimeLoop) -> None:
    async def run() -> None:
        asked = {A}
        postponing = Postponing(lambda key: key in asked)
        assert postponing.visit(A)()
        assert not postponing.visit(B)(), "nothing follows"
        asked.clear()
        assert not postponing.visit(A)()

    loop.run(run())


def test_one_that_is_always_overtaken_is_told_every_second(loop: VirtualTimeLoop) -> None:
    async def run() -> list[float]:
        postponing, told = Postponing(lambda key: True), []
        while asyncio.get_running_loop().time() < 10 * MOST_SECONDS:
            if not postponing.visit(A)():
                told.append(asyncio.get_running_loop().time())
            await asyncio.sleep(MOST_SECONDS / 16)
        return told

    told = loop.run(run())
    pauses = [late - early for early, late in zip([0.0, *told], told, strict=False)]
    assert len(told) > 5
    assert max(pauses) <= MOST_SECONDS * 1.1


def test_visits_that_are_late_leave_it_out_a_few_times_and_no_more(loop: VirtualTimeLoop) -> None:
    async def run() -> list[bool]:
        postponing, found = Postponing(lambda key: True), []
        for _ in range(2 * (LEAST_TIMES + 1)):
            found.append(postponing.visit(A)())
            await asyncio.sleep(30 * MOST_SECONDS)
        return found

    assert loop.run(run()) == [*[True] * LEAST_TIMES, False] * 2


def test_a_new_model_whose_engine_is_there_costs_few_writes(loop: VirtualTimeLoop) -> None:
    cluster = at_work(loop, FullStore())
    loop.run(cluster.apply(model(replicas=0), field_manager="user"))
    loop.run(asyncio.sleep(5))
    written = [f"{write.verb} {write.ref.kind.kind}" for write in cluster.writes if write.ref.kind != EVENT]
    children = [
        "create EngineBuild",
        "patch_status EngineBuild",
        "apply ConfigMap",
        "apply Deployment",
        "apply Service",
    ]
    assert sorted(written) == sorted(["apply OptimizedModel", *children, "patch_status OptimizedModel"])
    (deployment,) = loop.run(cluster.list(DEPLOYMENT))
    cluster.writes.clear()
    loop.run(
        cluster.patch_status(Ref(DEPLOYMENT, deployment["metadata"]["name"], "default"), {"observedGeneration": 1})
    )
    loop.run(asyncio.sleep(5))
    assert [write.verb for write in cluster.writes if write.ref.kind == OPTIMIZED_MODEL] == ["patch_status"]
    found = loop.run(cluster.get(Ref(OPTIMIZED_MODEL, "search", "default")))["status"]
    states = {item["type"]: item["status"] for item in found["conditions"]}
    assert (states["RolledOut"], found["observedGeneration"]) == ("True", 1)


def test_a_slow_build_shows_in_the_status_within_a_second(loop: VirtualTimeLoop) -> None:
    cluster = at_work(loop, Store())
    loop.run(cluster.apply(model(), field_manager="user"))
    loop.run(asyncio.sleep(1))
    found = loop.run(cluster.get(Ref(OPTIMIZED_MODEL, "search", "default")))["status"]
    states = {item["type"]: (item["status"], item["reason"]) for item in found["conditions"]}
    assert found["observedGeneration"] == 1
    assert states["Accepted"] == ("True", "Valid")
    assert states["Reconciling"] == ("True", "Queued")
