"""A new engine beside the one that serves: growing shares, a guard, and the way back."""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime, timedelta
from typing import Any

import pytest

from enginewright_api.metrics import CANARY_BUCKETS_SECONDS
from enginewright_cluster.port import DEPLOYMENT, OPTIMIZED_MODEL, SERVICE, Ref
from enginewright_operator.core.conditions import rfc3339
from enginewright_operator.core.traffic import Answers
from tests.scenarios.kubelet import crashing_server, ready_server, refusing_admission, unschedulable
from tests.scenarios.models import PAUSE_SECONDS
from tests.scenarios.test_rolling_out import B, active, only, selected
from tests.scenarios.world import World

CANARY: dict[str, Any] = {
    "strategy": "Canary",
    "canary": {"steps": [{"weight": 5, "seconds": 300}, {"weight": 50, "seconds": 600}]},
    "guard": {"maxLatencyRatio": 1.2, "maxErrorRate": 0.01},
    "maxSurge": 4,
}


def answers(requests: int, *, seconds: float = 0.1, failures: int = 0) -> Answers:
    """So many requests that took so long, and some that failed."""
    buckets = [0] * (len(CANARY_BUCKETS_SECONDS) + 1)
    buckets[bisect_left(CANARY_BUCKETS_SECONDS, seconds)] = requests - failures
    return Answers(requests, failures, tuple(buckets))


async def rollout(world: World) -> dict[str, Any]:
    """What the status says of it; empty when there is none."""
    found: dict[str, Any] = (await world.model())["status"].get("rollout", {})
    return found


async def begun(world: World, **changes: Any) -> str:
    """One engine serves with four replicas, its successor gets the first share. The label of the former."""
    await world.apply()
    await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", world.namespace), 4)
    await world.settle()
    old = await selected(world)
    world.gateways.stable = answers(1000)
    await world.apply(**B, rollout={**CANARY, **changes})
    await world.settle()
    return old


async def replicas(world: World) -> dict[str, int]:
    """Replicas of each Deployment by artifact label."""
    found = await world.cluster.list(DEPLOYMENT, namespace=world.namespace)
    return {item["metadata"]["labels"]["enginewright.io/artifact"]: item["spec"]["replicas"] for item in found}


async def test_a_canary_that_keeps_the_guard_takes_over_step_by_step(world: World) -> None:
    old = await begun(world)
    first = await rollout(world)
    new = first["artifactDigest"].removeprefix("sha256:")[:32]
    assert (first["state"], first["step"], first["weight"]) == ("Canary", 0, 5)
    assert await replicas(world) == {old: 4, new: 1}
    assert await selected(world) == old == await active(world)
    service = await world.one(SERVICE, f"search-{new[:8]}")
    assert service is not None
    assert service["spec"]["selector"]["enginewright.io/artifact"] == new
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("Unknown", "Progressing")
    assert "step 1 of 2: 5% of the requests for 300 s" in message
    # Time alone does not promote: 59 answers say too little.
    world.gateways.canary = answers(59)
    await world.wait_for(301)
    assert (await rollout(world))["step"] == 0
    assert "each version has to answer 60 requests" in (await world.condition("RolledOut"))[2]
    world.gateways.canary = answers(60, seconds=0.11)
    await world.wait_for(11)
    second = await rollout(world)
    assert (second["step"], second["weight"]) == (1, 50)
    assert await replicas(world) == {old: 4, new: 2}
    # Neither do good figures alone.
    await world.wait_for(300)
    assert await selected(world) == old
    await world.wait_for(301)
    assert await selected(world) == new == await active(world)
    await world.wait_for(PAUSE_SECONDS + 1)
    assert (await world.condition("Ready"))[0] == "True"
    assert await replicas(world) == {new: 4}
    assert await rollout(world) == {}
    assert f"search-{new[:8]}" not in await world.names(SERVICE)
    windows = list(dict.fromkeys(world.gateways.asked))
    assert [window.split("-")[1] for window in windows] == sorted(window.split("-")[1] for window in windows)


async def test_a_breach_goes_back_with_the_figures_and_is_not_tried_again(world: World) -> None:
    old = await begun(world)
    world.gateways.canary = answers(200, failures=20)
    await world.wait_for(11)
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "RolledBack")
    assert "at 5% of the requests: maxErrorRate 0.01 is exceeded" in message
    assert "20 of 200 requests, the stable engine 0 of 1000 requests" in message
    assert ((await rollout(world))["state"], (await rollout(world))["weight"]) == ("RolledBack", 0)
    assert len(await replicas(world)) == 2, "requests in flight at the canary may end"
    await world.wait_for(PAUSE_SECONDS + 1)
    assert await replicas(world) == {old: 4}
    assert await selected(world) == old == await active(world)
    assert (await world.condition("Servable"))[0] == "True"
    assert (await world.condition("Stalled"))[:2] == ("True", "RolledBack")
    assert ("search", "Warning", "RolledBack") in await world.events()
    # Neither time, nor another number of replicas, nor a new process gives it another chance.
    world.gateways.canary = answers(200)
    await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", world.namespace), 3)
    world.restarted()
    await world.wait_for(5000)
    assert await replicas(world) == {old: 3}
    assert (await world.condition("RolledOut"))[1] == "RolledBack"
    # Another spec does, with the same engine.
    attempts = len(world.kubelet.attempts)
    await world.apply(**B, rollout={**CANARY, "guard": {"maxErrorRate": 0.2}})
    await world.settle()
    assert ((await rollout(world))["state"], (await rollout(world))["weight"]) == ("Canary", 5)
    assert len(world.kubelet.attempts) == attempts


async def test_a_slower_canary_goes_back(world: World) -> None:
    await begun(world)
    world.gateways.canary = answers(200, seconds=0.15)
    await world.wait_for(11)
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "RolledBack")
    assert "maxLatencyRatio 1.2 is exceeded" in message
    assert "times" in message


@pytest.mark.parametrize("silent", [True, False])
async def test_missing_figures_never_promote_and_end_with_the_deadline(fake_world: World, *, silent: bool) -> None:
    world = fake_world
    old = await begun(world)
    world.gateways.answer = not silent
    world.gateways.canary = answers(0)
    await world.wait_for(301)
    await world.wait_for(800)
    assert ((await rollout(world))["state"], (await rollout(world))["step"]) == ("Canary", 0)
    await world.wait_for(120)
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "RolledBack")
    assert "no proof within 900 s after the step" in message
    assert ("1 of 1 gateways have not told" in message) == silent
    await world.wait_for(PAUSE_SECONDS + 1)
    assert await replicas(world) == {old: 4}


async def test_a_canary_that_crashes_under_requests_goes_back(world: World) -> None:
    old = await begun(world)
    world.kubelet.server = lambda pod: only(pod, old, crashing_server(pod))
    await world.settle()
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "RolledBack")
    assert "ended with signal 11" in message
    assert (await world.condition("Servable"))[0] == "True"
    last = (await world.model())["status"]["lastFailure"]
    assert (last["stage"], last["reason"]) == ("Rollout", "RolledBack")
    assert "ServerDied" in last["message"]


@pytest.mark.parametrize(("seconds", "counts"), [(-30, False), (0, True)], ids=["before", "during"])
async def test_a_crash_counts_only_while_the_share_lasts(fake_world: World, *, seconds: int, counts: bool) -> None:
    """A pod that was killed before it became the canary, and is not ready for a moment, has not crashed again."""
    world = fake_world
    old = await begun(world)
    since = datetime.fromisoformat((await rollout(world))["since"])
    crashed = crashing_server({})
    ended = crashed["containerStatuses"][0]["lastState"]["terminated"]
    ended["finishedAt"] = rfc3339(since + timedelta(seconds=seconds))
    crashed["containerStatuses"][0]["state"] = {"running": {}}
    world.kubelet.server = lambda pod: only(pod, old, crashed)
    await world.settle()
    assert ((await world.condition("RolledOut"))[1] == "RolledBack") == counts


async def test_a_canary_that_is_not_let_in_goes_back_at_once(fake_world: World) -> None:
    world = fake_world
    await world.apply()
    await world.settle()
    old = await selected(world)
    refuse = refusing_admission("DigestMismatch", "manifest.json is not what was built")
    world.kubelet.server = lambda pod: only(pod, old, refuse(pod))
    await world.apply(**B, rollout=CANARY)
    await world.settle()
    assert (await world.condition("RolledOut"))[1] == "RolledBack"
    assert "manifest.json is not what was built" in (await world.condition("RolledOut"))[2]
    assert await replicas(world) == {old: 1}


async def test_a_canary_that_never_gets_ready_ends_with_the_deadline(fake_world: World) -> None:
    world = fake_world
    await world.apply()
    await world.settle()
    old = await selected(world)
    world.kubelet.server = lambda pod: only(pod, old, unschedulable(pod))
    await world.apply(**B, rollout=CANARY)
    await world.settle()
    assert (await rollout(world))["weight"] == 0
    await world.wait_for(901)
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "RolledBack")
    assert "no progress for 900 s: 0 of 1 replicas of the canary are ready; Unschedulable" in message
    assert await replicas(world) == {old: 1}


async def test_back_to_the_former_spec_forgets_what_was_taken_back(fake_world: World) -> None:
    world = fake_world
    old = await begun(world)
    world.gateways.canary = answers(200, failures=20)
    await world.wait_for(11)
    await world.apply()
    await world.wait_for(PAUSE_SECONDS + 1)
    assert (await world.condition("Ready"))[0] == "True"
    assert await rollout(world) == {}
    assert await replicas(world) == {old: 4}
    assert "lastFailure" not in (await world.model())["status"]


async def test_with_little_surge_weight_and_replicas_grow_together(fake_world: World) -> None:
    world = fake_world
    old = await begun(world, maxSurge=1, canary={"steps": [{"weight": 75, "seconds": 60}]})
    new = (await rollout(world))["artifactDigest"].removeprefix("sha256:")[:32]
    assert (await rollout(world))["weight"] == 75
    assert await replicas(world) == {old: 2, new: 3}
    world.gateways.canary = answers(200, failures=20)
    await world.wait_for(11)
    await world.wait_for(PAUSE_SECONDS + 1)
    assert await replicas(world) == {old: 4}


async def test_without_a_guard_time_decides(fake_world: World) -> None:
    world = fake_world
    spec = {key: value for key, value in CANARY.items() if key != "guard"}
    await world.apply()
    await world.settle()
    old = await selected(world)
    await world.apply(**B, rollout=spec)
    await world.settle()
    await world.wait_for(301)
    assert ((await rollout(world))["weight"], await selected(world)) == (50, old)
    await world.wait_for(601)
    assert await selected(world) != old


async def test_the_first_engine_needs_no_canary(fake_world: World) -> None:
    world = fake_world
    await world.apply(rollout=CANARY)
    await world.settle()
    assert (await world.condition("Ready"))[0] == "True"
    assert await rollout(world) == {}


async def test_another_engine_ends_a_canary_under_way(fake_world: World) -> None:
    world = fake_world
    old = await begun(world)
    former = (await rollout(world))["artifactDigest"].removeprefix("sha256:")[:32]
    world.kubelet.builder = lambda attempt: None
    other = {"engine": {"limits": {"maxInputTokens": 64}}, "rollout": CANARY}
    await world.apply(**other)
    await world.settle()
    assert await rollout(world) == {}, "nobody watches over it while the next one is built"
    assert f"search-{former[:8]}" not in await world.names(SERVICE)
    world.kubelet.builder = world.published()
    await world.settle()
    found = await rollout(world)
    assert (found["state"], found["weight"]) == ("Canary", 5)
    assert former not in await replicas(world)
    assert old in await replicas(world)


async def test_a_paused_canary_keeps_its_share(fake_world: World) -> None:
    world = fake_world
    old = await begun(world)
    before = await rollout(world)
    world.gateways.canary = answers(200)
    await world.apply(**B, rollout={**CANARY, "paused": True})
    await world.wait_for(2000)
    assert await rollout(world) == before
    assert await selected(world) == old
    await world.apply(**B, rollout=CANARY)
    await world.settle()
    assert (await rollout(world))["step"] == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_in_place_one_goes_before_its_successor_comes(world: World, count: int) -> None:
    await world.apply()
    await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", world.namespace), count)
    await world.settle()
    old = await selected(world)
    most = 0
    await world.apply(**B, rollout={"maxSurge": 0})
    for _ in range(12):
        await world.round()
        await world.step()
        most = max(most, sum((await replicas(world)).values()))
    await world.settle()
    await world.wait_for(PAUSE_SECONDS + 1)
    found = await replicas(world)
    assert old not in found
    assert list(found.values()) == [count]
    assert most <= count
    assert (await world.condition("Ready"))[0] == "True"


@pytest.mark.parametrize("count", [1, 3])
async def test_in_place_what_does_not_come_gives_its_place_back(fake_world: World, count: int) -> None:
    world = fake_world
    await world.apply()
    await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", world.namespace), count)
    await world.settle()
    old = await selected(world)
    world.kubelet.server = lambda pod: only(pod, old, crashing_server(pod))
    await world.apply(**B, rollout={"maxSurge": 0})
    await world.settle()
    assert (await replicas(world))[old] == count - 1
    await world.wait_for(901)
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "RolledBack")
    assert "ProgressDeadlineExceeded: no progress for 900 s" in message
    assert await replicas(world) == {old: count}
    assert (await world.condition("Servable"))[0] == "True"
    await world.wait_for(2000)
    assert await replicas(world) == {old: count}


async def test_in_place_half_way_goes_back_one_by_one(fake_world: World) -> None:
    world = fake_world
    await world.apply()
    await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", world.namespace), 3)
    await world.settle()
    old = await selected(world)
    lucky: list[str] = []

    def server(pod: Any) -> Any:
        """The first pod of the new engine comes up, the others crash."""
        name = pod["metadata"]["name"]
        if pod["metadata"]["labels"]["enginewright.io/artifact"] != old and not lucky:
            lucky.append(name)
        return only(pod, old, ready_server(pod) if name in lucky else crashing_server(pod))

    world.kubelet.server = server
    await world.apply(**B, rollout={"maxSurge": 0})
    await world.settle()
    assert await selected(world) == "", "both engines answer"
    await world.wait_for(901)
    await world.wait_for(PAUSE_SECONDS + 1)
    assert (await world.condition("RolledOut"))[1] == "RolledBack"
    assert await replicas(world) == {old: 3}
    assert await selected(world) == old
