"""A clock that jumps by an hour, either way, delays nothing by an hour and takes nothing away."""

from __future__ import annotations

import pytest

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.port import DEPLOYMENT
from tests.scenarios.evidence import failure
from tests.scenarios.kubelet import Attempt, PodStatus, ready_server
from tests.scenarios.models import PAUSE_SECONDS
from tests.scenarios.test_canaries import answers, begun, replicas, rollout
from tests.scenarios.test_rolling_out import B, only, selected
from tests.scenarios.world import World

HOUR = 3600.0
both_ways = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])


@both_ways
async def test_the_former_engine_goes_after_its_requests_have_ended(fake_world: World, jump: float) -> None:
    await fake_world.apply()
    await fake_world.settle()
    old = await selected(fake_world)
    await fake_world.apply(**B)
    await fake_world.settle()
    assert await selected(fake_world) != old
    assert len(await fake_world.names(DEPLOYMENT)) == 2
    await fake_world.wait_for(jump)
    await fake_world.wait_for(PAUSE_SECONDS + 1)
    assert len(await fake_world.names(DEPLOYMENT)) == 1
    assert (await fake_world.condition("Ready"))[0] == "True"


@both_ways
async def test_a_failed_attempt_is_repeated_once(fake_world: World, jump: float) -> None:
    good = fake_world.published()

    def builder(attempt: Attempt) -> BuildOutcome | PodStatus | None:
        if attempt.number == 1:
            return failure(attempt.key, FailureClass.TRANSIENT, "StoreUnavailable")
        return good(attempt)

    fake_world.kubelet.builder = builder
    await fake_world.apply()
    await fake_world.settle()
    await fake_world.wait_for(jump)
    await fake_world.wait_for(PAUSE_SECONDS + 1)
    assert [attempt.number for attempt in fake_world.kubelet.attempts] == [1, 2]
    assert (await fake_world.condition("Ready"))[0] == "True"


@both_ways
async def test_no_working_engine_goes_while_the_next_one_starts(fake_world: World, jump: float) -> None:
    await fake_world.apply()
    await fake_world.settle()
    old = await selected(fake_world)
    fake_world.kubelet.server = lambda pod: only(pod, old)
    await fake_world.apply(**B)
    await fake_world.settle()
    await fake_world.wait_for(jump)
    assert await selected(fake_world) == old
    assert (await fake_world.condition("Servable"))[0] == "True"
    fake_world.kubelet.server = ready_server
    await fake_world.settle()
    assert await selected(fake_world) != old, "a deadline that ended too early ends nothing that gets ready"
    await fake_world.wait_for(PAUSE_SECONDS + 1)
    assert (await fake_world.condition("Ready"))[0] == "True"


@both_ways
async def test_a_canary_takes_over_in_its_own_time(fake_world: World, jump: float) -> None:
    """Forward, a step counts as over, but its figures must hold. Back, it begins anew, in a window of its own."""
    old = await begun(fake_world)
    fake_world.gateways.canary = answers(60)
    await fake_world.wait_for(jump)
    assert await selected(fake_world) == old
    windows = len(set(fake_world.gateways.asked))
    await fake_world.wait_for(301)
    assert (await rollout(fake_world))["step"] == 1
    await fake_world.wait_for(601)
    assert await selected(fake_world) != old
    await fake_world.wait_for(PAUSE_SECONDS + 1)
    assert len(await replicas(fake_world)) == 1
    assert (await fake_world.condition("Ready"))[0] == "True"
    assert windows == 2


async def test_a_canary_without_figures_is_not_promoted_by_a_jump(fake_world: World) -> None:
    old = await begun(fake_world)
    await fake_world.wait_for(HOUR)
    assert await selected(fake_world) == old
    assert (await rollout(fake_world))["state"] == "RolledBack"


@both_ways
async def test_what_was_taken_back_goes_away(fake_world: World, jump: float) -> None:
    old = await begun(fake_world)
    fake_world.gateways.canary = answers(200, failures=20)
    await fake_world.wait_for(11)
    assert (await rollout(fake_world))["state"] == "RolledBack"
    await fake_world.wait_for(jump)
    await fake_world.wait_for(PAUSE_SECONDS + 1)
    assert await replicas(fake_world) == {old: 4}
