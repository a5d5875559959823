"""A recipe search through the operator: candidate after candidate, its budget, restarts, failures, a new budget."""

from __future__ import annotations

from typing import Any

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.port import ENGINE_BUILD, JOB
from tests.scenarios.evidence import evidence, failure, success
from tests.scenarios.kubelet import Attempt, PodStatus
from tests.scenarios.world import World

LATENCY = {"profile": "Latency"}
TWO = {**LATENCY, "search": {"maxBuilds": 2}}
MEASURED: dict[tuple[str, str], dict[str, Any]] = {
    ("OpenVINO", "INT8"): {"drop": 0.004, "bound": 0.006, "speedup": 4.0, "size_bytes": 23},
    ("ONNXRuntime", "INT8"): {"drop": 0.005, "bound": 0.008, "speedup": 3.0, "size_bytes": 22},
    ("OpenVINO", "BF16"): {"drop": 0.0001, "bound": 0.0002, "speedup": 2.0, "size_bytes": 45},
    ("OpenVINO", "FP16"): {"drop": 0.0, "bound": 0.0001, "speedup": 1.4, "size_bytes": 45},
    ("OpenVINO", "None"): {"drop": 0.0, "bound": 0.0001, "speedup": 1.3, "size_bytes": 90},
    ("ONNXRuntime", "None"): {"drop": 0.0, "bound": 0.0001, "speedup": 1.1, "size_bytes": 90},
}


def building(world: World, seconds: float = 60.0, **changed: dict[str, Any]) -> None:
    """Builders that measure as in the table, with some formats otherwise."""

    def build(attempt: Attempt) -> BuildOutcome | PodStatus | None:
        figures = {**MEASURED[attempt.backend, attempt.format], **changed.get(attempt.format, {})}
        if attempt.removed:
            figures |= {"drop": 0.03, "bound": 0.04}
        found = evidence(attempt.request_digest, **figures)
        world.store.artifacts.setdefault(attempt.key, []).append(found)
        return success(attempt.key, found, seconds=seconds)

    world.kubelet.builder = build


async def test_the_best_that_passes_is_served(world: World) -> None:
    building(world)
    await world.apply(optimization=TWO)
    await world.settle()
    status = (await world.model())["status"]
    assert [(one.backend, one.format) for one in world.kubelet.attempts] == [
        ("OpenVINO", "INT8"), ("ONNXRuntime", "INT8"),
    ], "what passed makes more bits and other methods pointless"  # fmt: skip
    assert (await world.condition("Ready"))[0] == "True"
    assert (status["active"]["backend"], status["active"]["format"]) == ("OpenVINO", "INT8")
    _, reason, message = await world.condition("Built")
    assert reason == "EngineReady"
    assert "2 builds, 2 of 240 minutes" in message
    first, second = status["rungs"][:2]
    assert first["message"].startswith("chosen: INT8 SmoothQuant on OpenVINO, 4.00 times the baseline's speed")
    assert first["message"].endswith("on the Pareto front")
    assert "3.00 times" in second["message"]
    assert "INT8 SmoothQuant on OpenVINO is better" in second["message"]
    assert second["message"].count("on the Pareto front") == 1, "it is the smaller one"
    assert all("skipped: " in rung["message"] or "not tried: " in rung["message"] for rung in status["rungs"][2:])
    assert len(status["rungs"]) <= 16


async def test_what_is_removed_goes_on_top_of_the_best_precision(world: World) -> None:
    building(world)
    await world.apply(optimization=LATENCY)
    await world.settle()
    removed = [one for one in world.kubelet.attempts if one.removed]
    assert removed
    assert {(one.backend, one.format) for one in removed} == {("OpenVINO", "INT8")}
    assert len(world.kubelet.attempts) <= 8
    status = (await world.model())["status"]
    assert status["rungs"][0]["message"].startswith("chosen: ")
    assert any("did not pass its gate" in rung["message"] for rung in status["rungs"]), "stronger ones are spared"
    assert (await world.condition("Ready"))[0] == "True"


async def test_a_failing_gate_leads_to_other_methods_and_formats(world: World) -> None:
    building(world, INT8={"drop": 0.012, "bound": 0.014})
    await world.apply(optimization=LATENCY)
    await world.settle()
    status = (await world.model())["status"]
    methods = {one.method for one in world.kubelet.attempts if one.format == "INT8"}
    assert {"SmoothQuant", "Dynamic", "MinMax", "Histogram", "Entropy"} <= methods
    assert len(world.kubelet.attempts) == 8, "the default budget"
    assert (await world.condition("Built"))[:2] == ("False", "QualityBelowBudget")
    assert "not tried: the budget of 8 builds is used up" in status["rungs"][-1]["message"]
    await world.apply(optimization={**LATENCY, "search": {"maxBuilds": 20}})
    await world.settle()
    assert (await world.model())["status"]["active"]["format"] in ("BF16", "FP16")
    assert len(world.kubelet.attempts) == len({one.key for one in world.kubelet.attempts}), "nothing was built twice"


async def test_the_search_says_where_it_stands_and_goes_on_after_a_restart(world: World) -> None:
    building(world)
    measuring, at_work = world.kubelet.builder, [True]

    def build(attempt: Attempt) -> BuildOutcome | PodStatus | None:
        return None if attempt.backend == "ONNXRuntime" and at_work else measuring(attempt)

    world.kubelet.builder = build
    await world.apply(optimization=TWO)
    await world.settle()
    status, reason, message = await world.condition("Built")
    # A real cluster's Job controller takes its time to say that a pod runs.
    assert status == "Unknown"
    assert reason in (("Building", "Queued") if world.real else ("Building",))
    assert message.startswith("search 2 of 2 builds, 1 of 240 minutes: INT8 Dynamic on ONNXRuntime: ")
    assert "active" not in (await world.model())["status"], "the best is served when the search is over"
    world.restarted()
    before = await world.steady_versions()
    await world.round()
    if not world.real:  # the controllers of a real cluster write as well
        assert await world.steady_versions() == before
    at_work.clear()
    await world.settle()
    assert len(world.kubelet.attempts) == 2
    assert (await world.condition("Ready"))[0] == "True"


async def test_minutes_end_the_search(world: World) -> None:
    building(world, seconds=90)
    await world.apply(optimization={"profile": "Size", "search": {"maxMinutes": 1}})
    await world.settle()
    assert len(world.kubelet.attempts) == 1
    assert "the budget of 1 minutes is used up" in (await world.condition("Built"))[2]
    assert (await world.condition("Ready"))[0] == "True"


async def test_another_goal_builds_only_what_is_new(world: World) -> None:
    building(world)
    await world.apply(optimization=TWO)
    await world.settle()
    await world.apply(optimization={"profile": "Size", "search": {"maxBuilds": 2}})
    await world.settle()
    assert len(world.kubelet.attempts) == 2
    assert (await world.model())["status"]["active"]["backend"] == "ONNXRuntime", "22 bytes are less than 23"


async def test_what_fails_every_candidate_is_built_once(world: World) -> None:
    world.kubelet.builder = lambda attempt: failure(
        attempt.key, FailureClass.DETERMINISTIC, "SourceNotFound", "source.package.name: not installed", stage="fetch"
    )
    await world.apply(optimization=LATENCY)
    await world.settle()
    assert len(await world.names(JOB)) == 1
    assert (await world.condition("Built"))[:2] == ("False", "BuildFailed")


async def test_an_outage_does_not_count_as_an_answer(world: World) -> None:
    world.kubelet.builder = lambda attempt: failure(attempt.key, FailureClass.TRANSIENT, "StoreUnavailable")
    await world.apply(optimization=LATENCY)
    for _ in range(5):
        await world.settle()
        world.clock.forward(1300)
    await world.settle()
    assert len(await world.names(ENGINE_BUILD)) == 1
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "BuildFailed")
    assert message.startswith("search 1 of 8 builds")


async def test_nothing_better_than_the_baseline_is_not_deployed(world: World) -> None:
    slow = {"drop": 0.0, "bound": 0.0001, "speedup": 0.9}
    building(world, INT8=slow, BF16=slow, FP16=slow, **{"None": slow})
    await world.apply(optimization={**LATENCY, "search": {"maxBuilds": 20}})
    await world.settle()
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "NoImprovement")
    assert "not better than the baseline" in message
