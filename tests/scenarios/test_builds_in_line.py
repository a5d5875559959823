"""Where builds are limited: one at a time, the others say whom they wait for, and none is forgotten."""

from __future__ import annotations

from dataclasses import replace

from enginewright_cluster.port import ENGINE_BUILD, JOB
from enginewright_operator.core.turns import is_over
from tests.scenarios.models import settings
from tests.scenarios.world import World

MODELS = ("first", "second", "third")


async def test_builds_begin_one_after_the_other(world: World) -> None:
    world.settings = settings(builds=replace(world.settings.builds, most_at_once=1))
    world.restarted()
    world.kubelet.builder = lambda attempt: None
    for number, name in enumerate(MODELS):
        # Recipes of their own: models of one recipe share its build.
        await world.apply(name, engine={"limits": {"maxBatchSize": 8 + number}})
    await world.settle()
    for left in range(len(MODELS), 0, -1):
        assert len(await at_work(world)) == 1
        assert await waiting(world) == [
            f"{before} build{'s' if before > 1 else ''} come{'s' if before == 1 else ''} before it: at most 1 at once"
            " in the cluster"
            for before in range(1, left)
        ]
        world.kubelet.builder = world.published()
        await world.step()
        world.kubelet.builder = lambda attempt: None
        await world.settle()  # its Job ends
        await world.wait_for(2)  # and the line moves on
    assert len(await world.names(JOB)) == len(MODELS)
    for name in MODELS:
        assert (await world.condition("Built", name))[0] == "True"


async def at_work(world: World) -> list[str]:
    jobs = await world.cluster.list(JOB, namespace=world.namespace)
    return [job["metadata"]["name"] for job in jobs if not is_over(job)]


async def waiting(world: World) -> list[str]:
    """What builds without a Job say, nearest first."""
    builds = await world.cluster.list(ENGINE_BUILD, namespace=world.namespace)
    ready = [item for build in builds for item in build["status"]["conditions"] if item["type"] == "Ready"]
    return sorted(item["message"] for item in ready if "before it" in item["message"])
