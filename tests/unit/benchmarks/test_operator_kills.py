"""The check at the end of `benchmarks.operator_kills` sees what it is there to see."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.lifecycles import Jobs, Users, Wanted, breaches
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import DEPLOYMENT, ENGINE_BUILD, OPTIMIZED_MODEL, SERVICE, Kind, Object, Ref
from tests.scenarios.world import Moving, World

SEARCH = ("default", "search")
LIMITS = {"maxBatchSize": 8, "maxInputTokens": 64}


@pytest.fixture
async def world() -> World:
    """One model, served."""
    clock = Moving()
    built = World(FakeCluster(now=clock), clock=clock)
    await built.give_class()
    await built.apply(engine={"limits": LIMITS})
    await built.settle()
    return built


def _users(world: World, wanted: Wanted | None) -> Users:
    users = Users(world.cluster, [SEARCH], seed=0, within=1.0)
    users.wanted[SEARCH] = wanted
    return users


async def _found(world: World, wanted: Wanted | None, jobs: Jobs | None = None) -> list[str]:
    return await breaches(world.cluster, _users(world, wanted), jobs or Jobs())


async def test_nothing_is_wrong_where_nothing_is(world: World) -> None:
    assert await _found(world, Wanted(8, 1)) == []


async def test_another_recipe_than_wanted(world: World) -> None:
    assert "serves maxBatchSize 8" in (await _found(world, Wanted(16, 1)))[0]


async def test_fewer_replicas_than_wanted(world: World) -> None:
    assert "(1, 1)" in (await _found(world, Wanted(8, 2)))[0]


async def test_a_spec_that_nobody_acted_on(world: World) -> None:
    await world.apply(engine={"limits": {**LIMITS, "maxBatchSize": 16}})
    assert "not Ready with its spec" in (await _found(world, Wanted(16, 1)))[0]


async def test_a_model_that_should_be_gone(world: World) -> None:
    assert await _found(world, None) == ["default/search: wanted None, still there"]


async def test_what_is_left_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = {"metadata": {"name": "old", "namespace": "default", "uid": "old", "ownerReferences": [{"uid": "gone"}]}}
    listed = world.cluster.list

    async def and_one_more(kind: Kind) -> Sequence[Object]:
        """The fake cluster itself leaves nothing behind."""
        return [*await listed(kind), *([orphan] if kind == SERVICE else [])]

    monkeypatch.setattr(world.cluster, "list", and_one_more)
    assert await _found(world, Wanted(8, 1)) == ["Service default/old lives on without its owner"]


async def test_a_second_job_for_the_same(world: World) -> None:
    owner = {"uid": (await world.cluster.list(ENGINE_BUILD))[0]["metadata"]["uid"]}
    jobs = Jobs()
    for uid in ("first", "second"):
        labels = {"enginewright.io/evidence": "e"}
        jobs.told({"metadata": {"uid": uid, "ownerReferences": [owner], "labels": labels}})
    assert "2 Jobs" in (await _found(world, Wanted(8, 1), jobs))[0]


async def test_two_deployments_of_a_model(world: World) -> None:
    first = (await world.cluster.list(DEPLOYMENT))[0]
    uid = (await world.cluster.get(Ref(OPTIMIZED_MODEL, "search", "default")))["metadata"]["uid"]
    assert first["metadata"]["ownerReferences"][0]["uid"] == uid
    second = {**first, "metadata": {"name": "other", "namespace": "default"}}
    second["metadata"]["ownerReferences"] = first["metadata"]["ownerReferences"]
    await world.cluster.apply({key: value for key, value in second.items() if key != "status"})
    assert "(1, 0)" in (await _found(world, Wanted(8, 1)))[0]
