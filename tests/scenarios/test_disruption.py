"""A drain takes one replica of an engine at a time."""

from __future__ import annotations

from enginewright_cluster.port import DEPLOYMENT, OPTIMIZED_MODEL, POD, POD_DISRUPTION_BUDGET, Object, Ref
from tests.scenarios.models import PAUSE_SECONDS
from tests.scenarios.world import World


async def budgets(world: World) -> dict[str, Object]:
    """By name."""
    items = await world.cluster.list(POD_DISRUPTION_BUDGET, namespace=world.namespace)
    return {item["metadata"]["name"]: item for item in items}


async def test_each_engine_of_several_replicas_has_a_budget(world: World) -> None:
    await world.apply(replicas=1)
    await world.settle()
    assert await budgets(world) == {}, "one replica has to be let go"
    await world.apply(replicas=2)
    await world.settle()
    ((name, budget),) = (await budgets(world)).items()
    assert name in await world.names(DEPLOYMENT)
    assert (budget["spec"]["maxUnavailable"], budget["spec"]["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    selected = await world.cluster.list(
        POD, namespace=world.namespace, labels=budget["spec"]["selector"]["matchLabels"]
    )
    assert len(selected) == 2

    change = {"spec": {"maxUnavailable": 2}}
    await world.cluster.patch(Ref(POD_DISRUPTION_BUDGET, name, world.namespace), change)
    await world.settle()
    assert (await budgets(world))[name]["spec"]["maxUnavailable"] == 1


async def test_it_goes_with_its_engine(fake_world: World) -> None:
    await fake_world.apply(replicas=2)
    await fake_world.settle()
    (old,) = await budgets(fake_world)
    await fake_world.apply(replicas=2, engine={"limits": {"maxInputTokens": 128}})
    await fake_world.settle()
    assert len(await budgets(fake_world)) == 2, "both engines have pods"
    await fake_world.wait_for(PAUSE_SECONDS + 1)
    (new,) = await budgets(fake_world)
    assert new != old
    await fake_world.cluster.delete(Ref(OPTIMIZED_MODEL, "search", fake_world.namespace))
    await fake_world.settle()
    assert await budgets(fake_world) == {}
