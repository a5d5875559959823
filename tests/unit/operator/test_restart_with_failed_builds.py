"""A new operator process finds a thousand failed builds: it lets them be.

Retrying what has failed for good, all at once after a restart, is how a restart becomes an outage of everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from enginewright_api.errors import FailureClass
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.objects.copying import copied
from enginewright_cluster.objects.metadata import ref_of
from enginewright_cluster.port import ENGINE_BUILD, JOB, OPTIMIZED_MODEL, POD, Object, Ref
from enginewright_operator.shell.operator import Operator
from enginewright_operator.shell.waiting import Key
from tests.scenarios.evidence import failure
from tests.scenarios.models import PAUSE_SECONDS
from tests.scenarios.virtual_time import LoopClock, VirtualTimeLoop
from tests.scenarios.world import World

FAILED = 1000
LOOK_SECONDS = 120
"""Until every key was visited, some twice; a build that is to be tried again would be so at its first visit."""


class Counted(Operator):
    """Knows what it visited."""

    visited: set[Key]

    async def visit(self, key: Key) -> float | None:
        """As `Operator.visit`."""
        again = await super().visit(key)
        self.visited.add(key)
        return again


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    made = VirtualTimeLoop()
    asyncio.set_event_loop(made)
    yield made
    made.end()
    asyncio.set_event_loop(None)


def test_a_restart_retries_nothing_and_writes_nothing(loop: VirtualTimeLoop) -> None:
    """Builds that failed for good, builds that used all attempts up, and builds whose Jobs were cleaned away."""
    clock = LoopClock(loop)
    cluster = FakeCluster(now=clock)
    world = World(cluster, clock=clock)
    loop.run(world.give_class())
    used_up, cleaned, failed = FAILED // 5, FAILED * 2 // 5, FAILED * 2 // 5
    _fail_for_good(world, loop, FailureClass.TRANSIENT)
    _copies(cluster, "used-up", used_up)
    loop.run(cluster.delete(Ref(OPTIMIZED_MODEL, "search", "default")))
    _fail_for_good(world, loop, FailureClass.DETERMINISTIC)
    _copies(cluster, "failed", failed)
    for job in loop.run(cluster.list(JOB, namespace="default")):
        loop.run(cluster.delete(ref_of(job)))
    _copies(cluster, "cleaned", cleaned)
    loop.run(cluster.delete(Ref(OPTIMIZED_MODEL, "search", "default")))
    before = len(cluster.writes)
    started = Counted(cluster, world.store, world.settings, clock)
    started.visited = set()
    running = loop.create_task(started.run())

    loop.run(asyncio.sleep(LOOK_SECONDS))

    assert not running.done()
    kinds = [key.kind for key in started.visited]
    assert (kinds.count("OptimizedModel"), kinds.count("EngineBuild")) == (FAILED, FAILED)
    assert cluster.writes[before:] == []
    assert {build["status"]["phase"] for build in loop.run(cluster.list(ENGINE_BUILD))} == {"Failed"}


def test_what_can_still_succeed_is_tried_again(loop: VirtualTimeLoop) -> None:
    """The test above would hold of an operator that does nothing: one build is in its pause, the others have failed."""
    clock = LoopClock(loop)
    cluster = FakeCluster(now=clock)
    world = World(cluster, clock=clock)
    loop.run(world.give_class())
    _fail_for_good(world, loop, FailureClass.DETERMINISTIC)
    _copies(cluster, "failed", 20)
    world.kubelet.builder = lambda attempt: failure(attempt.key, FailureClass.TRANSIENT, "StoreUnavailable")
    loop.run(world.apply("late", engine={"limits": {"maxInputTokens": 64}}))
    loop.run(world.settle())
    attempts = len(world.kubelet.attempts)
    known = {(job["metadata"]["namespace"], job["metadata"]["name"]) for job in loop.run(cluster.list(JOB))}
    running = loop.create_task(Operator(cluster, world.store, world.settings, clock).run())
    loop.run(asyncio.sleep(PAUSE_SECONDS + 10))
    assert not running.done()
    new = {(job["metadata"]["namespace"], job["metadata"]["name"]) for job in loop.run(cluster.list(JOB))} - known
    assert len(new) == 1
    loop.run(world.step())
    loop.run(world.step())
    assert len(world.kubelet.attempts) == attempts + 1
    assert world.kubelet.attempts[-1].number == 2


def _fail_for_good(world: World, loop: VirtualTimeLoop, failed: FailureClass) -> None:
    """One model whose build has no attempt left."""
    world.kubelet.builder = lambda attempt: failure(attempt.key, failed, "SourceGone")
    loop.run(world.apply())
    for _ in range(world.settings.builds.attempts + 1):
        loop.run(world.settle())
        loop.run(asyncio.sleep(PAUSE_SECONDS + 1))
    assert loop.run(world.condition("Built"))[:2] == ("False", "BuildFailed")
    assert loop.run(world.condition("Stalled"))[0] == "True"


def _copies(cluster: FakeCluster, prefix: str, number: int) -> None:
    """The model of namespace `default`, its build, Jobs and pods, again in so many other namespaces."""
    rows = cluster._rows
    originals = [item for kind in (OPTIMIZED_MODEL, ENGINE_BUILD, JOB, POD) for item in rows.select(kind, "default")]
    for each in range(number):
        uids = {item["metadata"]["uid"]: f"{prefix}-{each}-{item['metadata']['uid']}" for item in originals}
        for item in originals:
            copy = _elsewhere(item, f"{prefix}-{each}", uids)
            rows.write(ref_of(copy), copy)


def _elsewhere(item: Object, namespace: str, uids: dict[str, str]) -> Object:
    copy: dict[str, Any] = copied(dict(item))
    metadata = copy["metadata"]
    metadata["namespace"], metadata["uid"] = namespace, uids[metadata["uid"]]
    for owner in metadata.get("ownerReferences", []):
        owner["uid"] = uids[owner["uid"]]
    return copy
