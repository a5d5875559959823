"""From a recipe to an engine: builds that succeed, fail for good, fail for a while; gates and rungs."""

from __future__ import annotations

import pytest

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.port import ENGINE_BUILD, JOB, POD, Ref
from tests.scenarios.evidence import evidence, failure, success
from tests.scenarios.kubelet import Attempt, PodStatus, evicted, killed_for_memory
from tests.scenarios.models import PAUSE_SECONDS
from tests.scenarios.world import World

LADDER = {"quantization": {"format": "INT8"}, "fallbacks": [{"quantization": {"format": "FP16"}}]}


async def test_model_becomes_ready(world: World) -> None:
    await world.apply()
    await world.settle()
    model = await world.model()
    states = {item["type"]: item["status"] for item in model["status"]["conditions"]}
    assert states == {
        "Accepted": "True", "Built": "True", "RolledOut": "True", "Servable": "True", "Autoscaling": "True",
        "Ready": "True", "Reconciling": "False", "Stalled": "False",
    }  # fmt: skip
    status = model["status"]
    assert status["observedGeneration"] == model["metadata"]["generation"]
    assert status["active"]["artifactDigest"] == status["target"]["artifactDigest"]
    assert status["quality"]["verdict"] == "Passed"
    assert status["rungs"][0]["speedup"] == 2.5
    assert "lastFailure" not in status
    assert status["endpoints"]["http"] == f"http://search.{world.namespace}.svc.cluster.local:8000"
    told = [(kind, reason) for name, kind, reason in await world.events() if name == "search"]
    assert sorted(told) == [
        ("Normal", reason) for reason in ("Accepted", "Built", "Ready", "RolledOut", "RollingOut", "Servable")
    ]


async def test_every_condition_is_set_at_the_first_visit(world: World) -> None:
    await world.apply()
    await world.round()
    conditions = {item["type"]: item for item in (await world.model())["status"]["conditions"]}
    assert len(conditions) == 8
    assert (conditions["Built"]["status"], conditions["Built"]["reason"]) == ("Unknown", "Queued")
    assert conditions["Ready"]["status"] == "Unknown"
    assert conditions["Reconciling"]["status"] == "True"
    assert conditions["Stalled"]["status"] == "False"


async def test_steady_state_writes_nothing(world: World) -> None:
    await world.apply()
    await world.settle()
    before = await world.steady_versions()
    world.clock.forward(3600)
    for _ in range(3):
        await world.round()
    assert await world.steady_versions() == before


async def test_deterministic_failure_is_never_retried(world: World) -> None:
    world.kubelet.builder = lambda attempt: failure(
        attempt.key, FailureClass.DETERMINISTIC, "UnsupportedOperator", "operator Foo has no kernel; exclude it"
    )
    await world.apply()
    await world.settle()
    await world.wait_for(7200)
    assert len(await world.names(JOB)) == 1
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "BuildFailed")
    assert "operator Foo has no kernel" in message
    assert (await world.condition("Ready"))[0] == "False"
    assert (await world.condition("Stalled"))[0] == "True"
    assert (await world.condition("Reconciling"))[0] == "False"
    last = (await world.model())["status"]["lastFailure"]
    assert (last["stage"], last["reason"], last["exitCode"]) == ("compile", "UnsupportedOperator", 20)
    assert last["logTail"] == "last line"
    assert ("search", "Warning", "BuildFailed") in await world.events()


async def test_a_verdict_outlives_the_pod_that_told_it(world: World) -> None:
    """Nodes go, and finished pods are cleaned away: the Job alone says no more than that it failed."""
    world.kubelet.builder = lambda attempt: failure(attempt.key, FailureClass.DETERMINISTIC, "UnsupportedOperator")
    await world.apply()
    await world.settle()
    for name in await world.names(POD):
        await world.cluster.delete(Ref(POD, name, world.namespace))
    world.restarted()
    await world.wait_for(7200)
    assert len(await world.names(JOB)) == len(world.kubelet.attempts) == 1
    assert (await world.condition("Built"))[:2] == ("False", "BuildFailed")
    assert (await world.model())["status"]["lastFailure"]["reason"] == "UnsupportedOperator"


async def test_one_builder_of_a_build_at_a_time_whatever_is_deleted(world: World) -> None:
    """One of two evidence requests is given up, the other at work; the Job that told of the first failure goes."""
    world.kubelet.builder = lambda attempt: failure(attempt.key, FailureClass.DETERMINISTIC, "UnsupportedOperator")
    await world.apply("one")
    await world.settle()
    (given_up,) = await world.names(JOB)
    world.kubelet.builder = lambda attempt: None
    await world.apply("two", quality={"samples": 64})
    await world.settle()
    (at_work,) = set(await world.names(JOB)) - {given_up}
    await world.cluster.delete(Ref(JOB, given_up, world.namespace))
    await world.settle()
    assert await world.names(JOB) == [at_work]


async def test_what_fails_every_rung_in_the_same_words_is_said_once(world: World) -> None:
    world.kubelet.builder = lambda attempt: failure(
        attempt.key, FailureClass.DETERMINISTIC, "SourceNotFound", "source.package.name: not installed"
    )
    await world.apply(optimization=LADDER)
    await world.settle()
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "BuildFailed")
    assert message.count("SourceNotFound") == 1
    assert "INT8" in message
    assert "FP16" in message


async def test_transient_failure_is_retried_after_a_pause(world: World) -> None:
    good = world.published()

    def builder(attempt: Attempt) -> BuildOutcome | PodStatus | None:
        if attempt.number == 1:
            return failure(attempt.key, FailureClass.TRANSIENT, "StoreUnavailable")
        return good(attempt)

    world.kubelet.builder = builder
    await world.apply()
    await world.settle()
    assert len(await world.names(JOB)) == 1, "the pause is not over"
    assert (await world.condition("Built"))[0] == "Unknown"
    assert "StoreUnavailable" in (await world.condition("Built"))[2]
    await world.wait_for(PAUSE_SECONDS + 1)
    assert [attempt.number for attempt in world.kubelet.attempts] == [1, 2]
    assert (await world.condition("Ready"))[0] == "True"
    assert "lastFailure" not in (await world.model())["status"]


async def test_transient_failures_end_when_the_attempts_are_used_up(world: World) -> None:
    world.kubelet.builder = lambda attempt: evicted()
    await world.apply()
    for _ in range(5):
        await world.settle()
        world.clock.forward(2 * PAUSE_SECONDS)
    await world.settle()
    assert len(await world.names(JOB)) == 3
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "BuildFailed")
    assert "Evicted" in message


async def test_build_that_ran_out_of_memory_gets_more_once(world: World) -> None:
    good = world.published()
    world.kubelet.builder = lambda attempt: killed_for_memory() if attempt.number == 1 else good(attempt)
    await world.apply()
    await world.settle()
    assert [attempt.memory for attempt in world.kubelet.attempts] == ["4Gi", "8Gi"]
    assert (await world.condition("Ready"))[0] == "True"


async def test_build_that_needs_more_than_there_is_says_so(world: World) -> None:
    world.kubelet.builder = lambda attempt: failure(
        attempt.key, FailureClass.RESOURCE, "OutOfMemory", "needs 100 GiB", needs_bytes=100 * 1024**3
    )
    await world.apply()
    await world.settle()
    assert len(await world.names(JOB)) == 1
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "OutOfMemory")
    assert "at most 32 GiB" in message


async def test_failing_gate_falls_to_the_next_rung(world: World) -> None:
    good = world.published()

    def builder(attempt: Attempt) -> BuildOutcome | PodStatus | None:
        if attempt.format == "INT8":
            return success(attempt.key, evidence(attempt.request_digest, drop=0.05, bound=0.06))
        return good(attempt)

    world.kubelet.builder = builder
    await world.apply(optimization=LADDER)
    await world.settle()
    status = (await world.model())["status"]
    assert [(rung["format"], rung["verdict"]) for rung in status["rungs"]] == [("INT8", "Failed"), ("FP16", "Passed")]
    assert "gate failed" in status["rungs"][0]["message"]
    assert status["active"]["format"] == "FP16"
    assert (await world.condition("Ready"))[0] == "True"


async def test_no_rung_within_the_budget(world: World) -> None:
    world.kubelet.builder = lambda attempt: success(
        attempt.key,
        evidence(attempt.request_digest, drop=0.05, bound=0.06 if attempt.format == "INT8" else 0.055),
    )
    await world.apply(optimization=LADDER)
    await world.settle()
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "QualityBelowBudget")
    assert "FP16" in message
    assert "0.055" in message
    assert (await world.model())["status"]["lastFailure"]["reason"] == "QualityBelowBudget"
    # A wider budget is judged from the stored evidence: nothing is built or measured.
    await world.apply(optimization=LADDER, quality={"maxDrop": 0.1})
    await world.settle()
    assert (await world.condition("Ready"))[0] == "True"
    assert (await world.model())["status"]["active"]["format"] == "INT8"
    assert len(await world.names(JOB)) == 2


async def test_engine_that_is_not_faster_is_not_deployed(world: World) -> None:
    world.kubelet.builder = world.published(speedup=0.9)
    await world.apply()
    await world.settle()
    status, reason, message = await world.condition("Built")
    assert (status, reason) == ("False", "NoSpeedup")
    assert "0.90" in message


async def test_second_model_with_the_same_recipe_shares_the_build(world: World) -> None:
    await world.apply("one")
    await world.apply("two", batching={"maxQueueSize": 64})
    await world.settle()
    assert len(world.kubelet.attempts) == 1
    for name in ("one", "two"):
        assert (await world.condition("Ready", name))[0] == "True"
    build = (await world.cluster.list(ENGINE_BUILD, namespace=world.namespace))[0]
    assert sorted(owner["name"] for owner in build["metadata"]["ownerReferences"]) == ["one", "two"]


async def test_other_evidence_for_the_same_engine_is_measured_once_more(world: World) -> None:
    await world.apply()
    await world.settle()
    digest = (await world.model())["status"]["active"]["artifactDigest"]
    await world.apply(quality={"samples": 64})
    await world.settle()
    assert [attempt.number for attempt in world.kubelet.attempts] == [1, 2]
    assert len({attempt.key for attempt in world.kubelet.attempts}) == 1
    assert len({attempt.request_digest for attempt in world.kubelet.attempts}) == 2
    assert (await world.model())["status"]["active"]["artifactDigest"] == digest
    assert (await world.condition("Ready"))[0] == "True"


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"hardware": {"acceleratorClasses": ["h100"]}}, "AcceleratorClassNotFound", "hardware.acceleratorClasses"),
        ({"optimization": {"quantization": {"format": "FP8"}}}, "FormatNotSupported", "FP8"),
        (
            {
                "runtime": {"earlyExit": {"confidence": 0.9}},
                "task": "Classification",
                "engine": {"backend": "Torch"},
            },
            "FeatureNotAvailable",
            "earlyExit",
        ),
    ],
)
async def test_what_cannot_run_is_refused_at_once(
    world: World, spec: dict[str, object], reason: str, field: str
) -> None:
    await world.apply(**spec)
    await world.settle()
    status, found, message = await world.condition("Accepted")
    assert (status, found) == ("False", reason)
    assert field in message
    assert (await world.condition("Stalled"))[0] == "True"
    assert await world.names(ENGINE_BUILD) == []
