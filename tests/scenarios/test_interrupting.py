"""Killed at any point, the operator goes on from the cluster's objects; a lost reply changes nothing."""

from __future__ import annotations

import pytest

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import DEPLOYMENT, ENGINE_BUILD, SERVICE
from enginewright_operator.shell.operator import Operator
from tests.scenarios.interruptions import Interrupted, Killed, killed_after, losing_replies
from tests.scenarios.models import PAUSE_SECONDS
from tests.scenarios.world import Moving, World


async def _until_steady(world: World, kill_after: int | None) -> int:
    """Writes of the first process, until it dies or all is done; further processes are left alone."""
    cut = Interrupted(world.cluster, killed_after(kill_after) if kill_after is not None else lambda written: None)
    world.operator = Operator(cut, world.store, world.settings, world.clock, namespace=world.namespace)  # type: ignore[arg-type]  # it delegates every method
    try:
        await world.settle()
    except Killed:
        world.restarted()
        await world.settle()
    return cut.written


async def _story(world: World, kill_after: int | None) -> int:
    await world.apply()
    written = await _until_steady(world, kill_after)
    await world.wait_for(PAUSE_SECONDS + 1)
    return written


async def _outcome(world: World) -> object:
    status = (await world.model())["status"]
    selector = (await world.cluster.list(SERVICE, namespace=world.namespace))[0]["spec"]["selector"]
    return (
        {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]},
        status["active"],
        selector,
        await world.names(DEPLOYMENT),
        await world.names(ENGINE_BUILD),
        len(world.kubelet.attempts),
    )


async def test_killed_after_any_write(fake_world: World) -> None:
    total = await _story(fake_world, None)
    wanted = await _outcome(fake_world)
    assert total > 10
    for number in range(1, total + 1):
        clock = Moving()
        world = World(FakeCluster(now=clock), clock=clock)
        await world.give_class()
        await _story(world, number)
        assert await _outcome(world) == wanted, f"killed after write {number}"


async def test_killed_and_restarted_again_and_again(world: World) -> None:
    """A new process for every round, on every kind of cluster."""
    await world.apply()
    for _ in range(6):
        cut = Interrupted(world.cluster, killed_after(2))
        world.operator = Operator(cut, world.store, world.settings, world.clock, namespace=world.namespace)  # type: ignore[arg-type]  # it delegates every method
        try:
            await world.round()
        except Killed:
            await world.step()
    world.restarted()
    await world.settle()
    assert (await world.condition("Ready"))[0] == "True"
    assert len(world.kubelet.attempts) == 1


@pytest.mark.parametrize("every", [2, 3, 5])
async def test_lost_replies(world: World, every: int) -> None:
    cut = Interrupted(world.cluster, losing_replies(every))
    world.operator = Operator(cut, world.store, world.settings, world.clock, namespace=world.namespace)  # type: ignore[arg-type]  # it delegates every method
    await world.apply()
    await world.settle()
    assert (await world.condition("Ready"))[0] == "True"
    assert len(world.kubelet.attempts) == 1
    assert len(await world.names(DEPLOYMENT)) == 1
