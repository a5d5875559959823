"""A model that lists several accelerator classes: where it starts, when it moves, and what callers notice of it."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.errors import FailureClass
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    DEPLOYMENT,
    ENGINE_BUILD,
    NODE,
    OPTIMIZED_MODEL,
    SERVICE,
    Object,
    Ref,
)
from enginewright_operator.core.class_choice import GONE_SECONDS
from tests.scenarios.evidence import failure
from tests.scenarios.kubelet import Attempt, Builder, Server, ready_server, unschedulable
from tests.scenarios.models import PAUSE_SECONDS, accelerator_class
from tests.scenarios.world import World

BOTH: dict[str, Any] = {"hardware": {"acceleratorClasses": ["fast", "slow"]}, "replicas": 2}
LONGER: dict[str, Any] = {**BOTH, "engine": {"limits": {"maxInputTokens": 128}}}
COUNTED_AFTER = 61
"""Seconds until nodes that came or went are counted."""


@pytest.fixture
async def pools(fake_world: World) -> World:
    """Two classes of different CPUs, each with a node."""
    for name in ("fast", "slow"):
        await give_class(fake_world, name, architecture=f"x86_64-{name}")
        await fake_world.give_node(name)
    return fake_world


@pytest.fixture
async def alike(fake_world: World) -> World:
    """Two classes that differ in nothing that an engine depends on, the first with little memory."""
    for name, memory in (("fast", 8), ("slow", 64)):
        await give_class(fake_world, name, memoryGiB=memory)
        await fake_world.give_node(name)
    return fake_world


async def give_class(world: World, name: str, **spec: Any) -> None:
    """A class whose nodes are those of the pool of its name."""
    await world.cluster.apply(accelerator_class(name, scheduling={"nodeSelector": {"pool": name}}, **spec))


async def take_node(world: World, pool: str, *, living: int = 0) -> None:
    """It is gone, and so are its pods, but for so many; others of that pool wait for a node."""
    await world.cluster.delete(Ref(NODE, pool))
    world.kubelet.server = losing(pool, living)


async def return_node(world: World, pool: str) -> None:
    """It is back."""
    await world.give_node(pool)
    world.kubelet.server = ready_server
    await world.wait_for(COUNTED_AFTER)


async def long_gone(world: World) -> None:
    """Until it is counted, and then as long as it takes."""
    await world.wait_for(COUNTED_AFTER)
    await world.wait_for(GONE_SECONDS)


def losing(pool: str, living: int) -> Server:
    """Servers of a pool without nodes."""
    alive: set[str] = set()

    def server(pod: Object) -> Any:
        name = pod["metadata"]["name"]
        if pod["spec"].get("nodeSelector", {}).get("pool") != pool or name in alive:
            return ready_server(pod)
        if len(alive) == living:
            return unschedulable(pod)
        alive.add(name)
        return ready_server(pod)

    return server


def too_small(name: str, otherwise: Builder) -> Builder:
    """Builders that find that nothing fits into a class."""

    def build(attempt: Attempt) -> Any:
        if attempt.accelerator_class == name:
            return failure(attempt.key, FailureClass.DETERMINISTIC, "WillNotFit")
        return otherwise(attempt)

    return build


async def on(world: World, role: str = "active", name: str = "search") -> str:
    """Class of the engine that serves, or of the target."""
    return str(((await world.model(name))["status"].get(role) or {}).get("acceleratorClass", ""))


async def selected(world: World) -> str:
    """Artifact label that the Service selects."""
    service = await world.one(SERVICE, "search")
    assert service is not None
    return str(service["spec"]["selector"].get("enginewright.io/artifact", ""))


def built_for(world: World) -> list[str]:
    """Classes of the builders that were started, in order."""
    return [attempt.accelerator_class for attempt in world.kubelet.attempts]


async def made_for(world: World) -> list[str]:
    """Classes of the EngineBuilds there are: one that was made anew has the name of the former."""
    builds = await world.cluster.list(ENGINE_BUILD, namespace=world.namespace)
    return [item["spec"]["accelerator"]["acceleratorClass"] for item in builds]


async def test_a_model_starts_on_the_first_class_that_has_nodes(pools: World) -> None:
    await take_node(pools, "fast")
    await pools.apply(**BOTH)
    await pools.settle()
    assert (await pools.condition("Ready"))[0] == "True"
    assert (await on(pools), await on(pools, "target"), built_for(pools)) == ("slow", "slow", ["slow"])
    message = (await pools.condition("Accepted"))[2]
    assert message.startswith("class slow of fast, slow; fast: no nodes since ")
    (deployment,) = await pools.cluster.list(DEPLOYMENT, namespace="default")
    assert deployment["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "slow"}


async def test_a_model_whose_nodes_are_gone_moves_with_one_build_and_stays(pools: World) -> None:
    await pools.apply(**BOTH)
    await pools.settle()
    old, good = await selected(pools), pools.kubelet.builder
    assert (await on(pools), built_for(pools)) == ("fast", ["fast"])

    await take_node(pools, "fast", living=1)
    pools.kubelet.builder = lambda attempt: None
    await pools.wait_for(COUNTED_AFTER)
    assert (await on(pools, "target"), built_for(pools)) == ("fast", ["fast"]), "nodes are often back at once"
    await pools.wait_for(GONE_SECONDS)
    assert built_for(pools) == ["fast", "slow"]
    assert (await on(pools), await selected(pools)) == ("fast", old), "callers keep what still answers"
    assert (await pools.condition("Servable"))[0] == "True"
    assert (await pools.condition("Ready"))[:2] == ("Unknown", "Building")

    pools.kubelet.builder = good
    await pools.settle()
    assert await on(pools) == "slow"
    assert await selected(pools) != old
    await pools.wait_for(PAUSE_SECONDS + 1)
    assert (await pools.condition("Ready"))[0] == "True"
    assert len(await pools.names(DEPLOYMENT)) == 1
    assert len(await pools.names(ENGINE_BUILD)) == 1
    assert ("search", "Normal", "AcceleratorClassChanged") in await pools.events()

    await return_node(pools, "fast")
    await pools.wait_for(10 * GONE_SECONDS)
    pools.restarted()
    await pools.settle()
    assert (await on(pools), built_for(pools)) == ("slow", ["fast", "slow"]), "a move costs a build and a rollout"

    await pools.apply(**LONGER)
    await pools.settle()
    assert (await on(pools), built_for(pools)) == ("fast", ["fast", "slow", "fast"]), "a new engine has to come anyway"


async def test_a_move_that_has_not_ended_is_called_off_when_the_nodes_come_back(pools: World) -> None:
    await pools.apply(**BOTH)
    await pools.settle()
    old = await selected(pools)
    await take_node(pools, "fast")
    pools.kubelet.builder = lambda attempt: None
    await long_gone(pools)
    assert built_for(pools) == ["fast", "slow"]
    await return_node(pools, "fast")
    assert (await on(pools), await on(pools, "target"), await selected(pools)) == ("fast", "fast", old)
    assert (await pools.condition("Ready"))[0] == "True"
    assert len(await pools.names(ENGINE_BUILD)) == 1


async def test_a_node_that_stopped_reporting_is_no_node(pools: World) -> None:
    await pools.apply(**BOTH)
    await pools.settle()
    await take_node(pools, "fast")
    await pools.give_node("fast", ready="Unknown")
    await long_gone(pools)
    assert await on(pools) == "slow"


async def test_replicas_that_answer_stay_whatever_the_count_says(pools: World) -> None:
    """A device plugin that restarts, a selector under repair: nothing is amiss with the model."""
    await pools.apply(**BOTH)
    await pools.settle()
    await take_node(pools, "fast", living=2)
    await long_gone(pools)
    await pools.wait_for(10 * GONE_SECONDS)
    assert (await on(pools), built_for(pools)) == ("fast", ["fast"])
    assert (await pools.condition("Ready"))[0] == "True"


async def test_a_status_that_was_lost_does_not_move_a_model(pools: World) -> None:
    await take_node(pools, "fast")
    await pools.apply(**BOTH)
    await pools.settle()
    await return_node(pools, "fast")
    lost = dict.fromkeys((await pools.model())["status"])
    await pools.cluster.patch_status(Ref(OPTIMIZED_MODEL, "search", "default"), lost)
    await pools.settle()
    assert (await on(pools), built_for(pools)) == ("slow", ["slow"])


async def test_a_class_that_is_deleted_for_a_while_does_not_move_a_model(pools: World) -> None:
    await take_node(pools, "fast")
    await pools.apply(**BOTH)
    await pools.settle()
    await return_node(pools, "fast")
    await pools.cluster.delete(Ref(ACCELERATOR_CLASS, "fast"))
    await pools.settle()
    assert (await pools.condition("Stalled"))[:2] == ("True", "AcceleratorClassNotFound")
    assert (await pools.condition("Servable"))[0] == "True"
    await give_class(pools, "fast", architecture="x86_64-fast")
    await pools.settle()
    assert (await on(pools), built_for(pools)) == ("slow", ["slow"])
    assert (await pools.condition("Ready"))[0] == "True"


async def test_a_class_that_builds_find_too_small_is_left(pools: World) -> None:
    pools.kubelet.builder = too_small("fast", pools.kubelet.builder)
    await pools.apply(**BOTH)
    await pools.settle()
    assert (await on(pools), built_for(pools)) == ("slow", ["fast", "slow"])
    assert "; fast: too small: " in (await pools.condition("Accepted"))[2]
    assert len(await pools.names(ENGINE_BUILD)) == 1
    await pools.wait_for(10 * GONE_SECONDS)
    pools.restarted()
    await pools.settle()
    assert built_for(pools) == ["fast", "slow"], "it is not tried again"


async def test_classes_whose_engines_are_the_same_share_the_build(alike: World) -> None:
    """Spot nodes and others: pods move, and nothing is built."""
    await alike.apply(**BOTH)
    await alike.settle()
    await take_node(alike, "fast")
    await long_gone(alike)
    assert (await on(alike), await on(alike, "target"), built_for(alike)) == ("slow", "slow", ["fast"])
    (deployment,) = await alike.cluster.list(DEPLOYMENT, namespace="default")
    assert deployment["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "slow"}
    assert (await alike.condition("Ready"))[0] == "True"
    await return_node(alike, "fast")
    assert await on(alike) == "slow"


async def test_a_shared_build_that_waits_for_nodes_in_vain_is_made_anew(alike: World) -> None:
    good = alike.kubelet.builder
    alike.kubelet.builder = lambda attempt: None if attempt.accelerator_class == "fast" else good(attempt)
    await alike.apply(**BOTH)
    await alike.settle()
    await take_node(alike, "fast")
    await long_gone(alike)
    assert (await on(alike), await made_for(alike)) == ("slow", ["slow"])
    assert (await alike.condition("Ready"))[0] == "True"


async def test_a_shared_build_that_failed_for_a_smaller_class_is_made_anew(alike: World) -> None:
    alike.kubelet.builder = too_small("fast", alike.kubelet.builder)
    await alike.apply(**BOTH)
    await alike.settle()
    assert (await on(alike), await made_for(alike)) == ("slow", ["slow"])
    assert "; fast: too small: " in (await alike.condition("Accepted"))[2]
    assert not [event for event in await alike.events() if event[:2] == ("search", "Warning")]
    await alike.wait_for(10 * GONE_SECONDS)
    assert (await on(alike), await made_for(alike)) == ("slow", ["slow"])


async def test_a_shared_build_that_failed_is_left_to_those_who_run_where_it_does_not_fit(alike: World) -> None:
    alike.kubelet.builder = too_small("fast", alike.kubelet.builder)
    await alike.apply("small", hardware={"acceleratorClasses": ["fast"]})
    await alike.settle()
    await alike.apply(**BOTH)
    await alike.settle()
    assert built_for(alike) == ["fast"]
    for name in ("small", "search"):
        assert (await alike.condition("Stalled", name))[:2] == ("True", "WillNotFit")
