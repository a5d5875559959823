"""What the operator logs, read as a log collector reads it: whole visits run, and every line of one says its model."""

# ruff: noqa: ASYNC110 - what is waited for has no event of its own

from __future__ import annotations

import asyncio

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import Call, Fault
from enginewright_cluster.port import ENGINE_BUILD, OPTIMIZED_MODEL, Ref
from tests.scenarios.world import Shifted, World
from tests.unit.operator.test_operator_process import beside, until_ready
from tests.written import Written


async def build_key(world: World) -> str:
    (build,) = await world.cluster.list(ENGINE_BUILD, namespace="default")
    return str(build["spec"]["key"])[:16]


async def test_every_line_of_a_visit_says_model_generation_and_build_key(written: Written) -> None:
    world = World(FakeCluster(), clock=Shifted())
    async with beside(world.operator.run()):
        await world.give_class()
        await world.apply()
        await until_ready(world)
        key = await build_key(world)
        await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", "default"), 2)
        async with asyncio.timeout(10):
            while not [line for line in written.lines("reconciled") if line.get("generation") == 2]:
                await world.step()
                await asyncio.sleep(0.01)
    told = written.lines("reconciled")
    models = [line for line in told if line["key"] == "OptimizedModel default/search"]
    builds = [line for line in told if line["key"] == f"EngineBuild default/eb-{key}"]
    assert models and builds
    assert {line["model"] for line in models + builds} == {"default/search"}
    assert {line["generation"] for line in models} == {1, 2}
    assert {line["generation"] for line in builds} == {1}
    assert {line["buildKey"] for line in models + builds} == {key}
    assert {line["phase"] for line in builds} >= {"Queued", "Succeeded"}
    assert all({"time", "level", "logger", "writes"} <= line.keys() for line in models + builds)
    (accelerators,) = {line["key"] for line in told} - {line["key"] for line in models + builds}
    assert accelerators == "AcceleratorClass cpu"
    assert not any("model" in line for line in told if line["key"] == accelerators), "a class is nobody's"


async def test_so_does_the_line_of_a_visit_that_failed(written: Written) -> None:
    away = False

    def faults(call: Call) -> Fault | None:
        return Fault.UNAVAILABLE if away and call.verb in ("apply", "create", "patch_status") else None

    world = World(FakeCluster(faults=faults), clock=Shifted())
    async with beside(world.operator.run()):
        await world.give_class()
        await world.apply()
        await until_ready(world)
        key = await build_key(world)
        away = True
        await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", "default"), 3)
        async with asyncio.timeout(10):
            while not written.lines("visit failed"):
                await asyncio.sleep(0.01)
    failed = [line for line in written.lines("visit failed") if line["key"] == "OptimizedModel default/search"]
    assert failed
    for line in failed:
        assert (line["model"], line["generation"], line["buildKey"]) == ("default/search", 2, key)
        assert line["error"] and line["level"] == "warning"
    labels = {"kind": "OptimizedModel", "class": "Transient", "error": "UnavailableError"}
    counted = world.operator._seen.registry.get_sample_value("enginewright_operator_reconcile_errors_total", labels)
    assert counted and counted >= len(failed)


async def test_visits_at_the_same_time_keep_their_lines_apart(written: Written) -> None:
    world = World(FakeCluster(), clock=Shifted())
    names = [f"m{number}" for number in range(6)]
    async with beside(world.operator.run()):
        await world.give_class()
        for name in names:
            await world.apply(name)
        async with asyncio.timeout(10):
            while len({line["key"] for line in written.lines("reconciled")}) < len(names) + 2:
                await world.step()
                await asyncio.sleep(0.01)
    for line in written.lines("reconciled"):
        kind, _, name = line["key"].partition(" ")
        if kind == "OptimizedModel":
            assert line["model"] == name
