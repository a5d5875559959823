"""A spec that changes while a visit is under way: what was decided on the former one is not carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import CONFIG_MAP, DEPLOYMENT, OPTIMIZED_MODEL, SERVICE, Object, Ref
from tests.scenarios.world import Moving, World

MODEL = Ref(OPTIMIZED_MODEL, "search", "default")


class Hasty(FakeCluster):
    """Somebody else writes once between two calls of the operator."""

    def __init__(self, clock: Moving) -> None:
        super().__init__(now=clock)
        self.after_reading: Callable[[], Awaitable[Any]] | None = None
        """When the operator has read the Service, which comes last."""
        self.after_config: Callable[[], Awaitable[Any]] | None = None
        """When it has written a ConfigMap, which comes before the Deployment."""
        self.sizes: list[int] = []
        """Replicas of the Deployments it wrote, in order."""

    async def get(self, ref: Ref) -> Object:
        """As the cluster does."""
        found = await super().get(ref)
        if ref.kind == SERVICE and self.after_reading is not None:
            write, self.after_reading = self.after_reading, None
            await write()
        return found

    async def apply(self, manifest: Object, *, field_manager: str = "enginewright", force: bool = True) -> Object:
        """As the cluster does."""
        done = await super().apply(manifest, field_manager=field_manager, force=force)
        if manifest["kind"] == DEPLOYMENT.kind:
            self.sizes.append(manifest["spec"]["replicas"])
        if manifest["kind"] == CONFIG_MAP.kind and self.after_config is not None:
            write, self.after_config = self.after_config, None
            await write()
        return done


async def settled() -> tuple[World, Hasty]:
    """A model of one replica that serves."""
    clock = Moving()
    cluster = Hasty(clock)
    world = World(cluster, clock=clock)
    await world.give_class()
    await world.apply()
    await world.settle()
    cluster.sizes.clear()
    return world, cluster


async def test_of_two_scale_writes_the_one_that_is_known_to_be_outdated_is_not_carried_out() -> None:
    world, cluster = await settled()
    await cluster.scale(MODEL, 4)
    cluster.after_reading = lambda: cluster.scale(MODEL, 2)
    await world.settle()
    assert cluster.after_reading is None
    assert set(cluster.sizes) == {2}, "four replicas were asked for, but no longer"
    assert (await world.condition("Ready"))[0] == "True"


async def test_a_plan_ends_where_it_is_overtaken() -> None:
    world, cluster = await settled()
    await world.apply(batching={"maxQueueDelayMicroseconds": 700})
    cluster.after_config = lambda: cluster.scale(MODEL, 3)
    await world.settle()
    assert cluster.after_config is None
    assert set(cluster.sizes) == {3}
    model = await world.model()
    assert model["status"]["observedGeneration"] == model["metadata"]["generation"]


async def test_nothing_is_made_for_a_model_that_is_gone() -> None:
    world, cluster = await settled()
    await cluster.scale(MODEL, 4)
    cluster.after_reading = lambda: cluster.delete(MODEL)
    await world.settle()
    assert cluster.sizes == []
    assert await world.names(DEPLOYMENT) == []
