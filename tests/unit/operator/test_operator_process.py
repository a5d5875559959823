"""The operator as it runs: woken by watches, one leader at a time, its health and metrics over HTTP."""

# ruff: noqa: ASYNC110 - what is waited for has no event of its own

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpx
import pytest

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import Call, Fault
from enginewright_cluster.port import LEASE, OPTIMIZED_MODEL, Ref, UnavailableError
from enginewright_operator.shell.leadership import Leadership, LeadershipLostError, Terms
from enginewright_operator.shell.observability import Observability
from tests.scenarios.models import accelerator_class
from tests.scenarios.world import Shifted, World

LEASE_REF = Ref(LEASE, "operator", "system")
QUICK = Terms(lease_seconds=1, renew_seconds=0.3, retry_seconds=0.02)


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Something that runs for the time of a test."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_ready(world: World, seconds: float = 10) -> None:
    """Only controllers and kubelet are stepped: the operator is woken by its watches."""
    async with asyncio.timeout(seconds):
        while True:
            await world.step()
            await asyncio.sleep(0.01)
            model = await world.model()
            states = {item["type"]: item["status"] for item in model.get("status", {}).get("conditions", [])}
            if states.get("Ready") == "True":
                return


async def test_watches_lead_to_a_ready_model_and_then_to_silence() -> None:
    cluster = FakeCluster()
    world = World(cluster, clock=Shifted())
    async with beside(world.operator.run()):
        await world.give_class()
        await world.apply()
        await until_ready(world)
        await asyncio.sleep(0.2)
        before = len(cluster.writes)
        await asyncio.sleep(0.3)
        assert len(cluster.writes) == before
        await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", "default"), 2)
        async with asyncio.timeout(10):
            while (await world.model())["status"]["replicas"] != 2:
                await world.step()
                await asyncio.sleep(0.01)


async def test_a_class_that_comes_later_wakes_the_models_that_wait_for_it() -> None:
    world = World(FakeCluster(), clock=Shifted())
    async with beside(world.operator.run()):
        await world.apply()
        async with asyncio.timeout(5):
            while "conditions" not in (await world.model()).get("status", {}):
                await asyncio.sleep(0.01)
        assert (await world.condition("Accepted"))[1] == "AcceleratorClassNotFound"
        await world.cluster.apply(accelerator_class())
        await until_ready(world)


async def test_watches_that_break_lose_nothing() -> None:
    count = 0

    def faults(call: Call) -> Fault | None:
        nonlocal count
        count += 1
        if call.verb == "watch":
            return (Fault.EXPIRED_WATCH, Fault.DUPLICATE_EVENT, Fault.STALE_EVENT, None)[count % 4]
        return None

    cluster = FakeCluster(faults=faults)
    world = World(cluster, clock=Shifted())
    async with beside(world.operator.run()):
        await world.give_class()
        await world.apply()
        await until_ready(world)
    assert len(world.kubelet.attempts) == 1


async def test_only_one_of_two_leads_and_the_other_takes_over() -> None:
    cluster = FakeCluster()
    led: list[str] = []

    def work(name: str) -> Any:
        async def run() -> None:
            led.append(name)
            await asyncio.Event().wait()

        return run

    one, two = (Leadership(cluster, LEASE_REF, name, QUICK) for name in ("one", "two"))
    async with beside(one.run(work("one"))) as first:
        await asyncio.sleep(0.1)
        async with beside(two.run(work("two"))):
            await asyncio.sleep(0.2)
            assert led == ["one"]
            first.cancel()
            await asyncio.sleep(0.3)
            assert led == ["one", "two"]
    transitions = (await cluster.get(LEASE_REF))["spec"]["leaseTransitions"]
    assert transitions == 2


async def test_a_leader_that_vanished_is_replaced_after_its_lease() -> None:
    cluster = FakeCluster()
    await cluster.create(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "operator", "namespace": "system"},
            "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 1, "renewTime": "2199-01-01T00:00:00.000000Z"},
        }
    )
    led = asyncio.Event()

    async def work() -> None:
        led.set()
        await asyncio.Event().wait()

    async with beside(Leadership(cluster, LEASE_REF, "new", QUICK).run(work)):
        await asyncio.sleep(0.3)
        assert not led.is_set(), "the lease had not ended, whatever the other clock says"
        async with asyncio.timeout(3):
            await led.wait()


async def test_a_leader_that_cannot_renew_stops() -> None:
    down = False

    def faults(call: Call) -> Fault | None:
        return Fault.UNAVAILABLE if down else None

    cluster = FakeCluster(faults=faults)
    stopped = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with beside(Leadership(cluster, LEASE_REF, "one", QUICK).run(work)) as task:
        await asyncio.sleep(0.1)
        down = True
        with pytest.raises(LeadershipLostError):
            async with asyncio.timeout(3):
                await asyncio.shield(task)
    assert stopped.is_set()


async def test_a_leader_whose_renewal_hangs_stops_before_its_lease_ends_for_others() -> None:
    """A server that takes requests and never answers: no error comes, for longer than the lease lasts."""
    silent = asyncio.Event()

    class Hanging(FakeCluster):
        async def get(self, ref: Ref) -> Any:
            if silent.is_set():
                await asyncio.Event().wait()
            return await super().get(ref)

    stopped = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with beside(Leadership(Hanging(), LEASE_REF, "one", QUICK).run(work)) as task:
        await asyncio.sleep(0.1)
        silent.set()
        async with asyncio.timeout(QUICK.lease_seconds):
            await stopped.wait()
        with pytest.raises(LeadershipLostError):
            async with asyncio.timeout(3):
                await asyncio.shield(task)


async def test_health_and_metrics_are_served() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen = Observability()
    seen.metrics.visited("OptimizedModel", 0.01)
    seen.metrics.wrote("Apply")
    seen.metrics.failed("EngineBuild", UnavailableError("Unavailable", "no answer"))
    async with beside(seen.serve("127.0.0.1", port)), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await asyncio.sleep(0.05)
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/nothing")).status_code == 404
        text = (await client.get("/metrics")).text
    assert 'enginewright_operator_reconcile_seconds_count{kind="OptimizedModel"} 1.0' in text
    assert 'enginewright_operator_effects_total{effect="Apply"} 1.0' in text
    failed = (
        'enginewright_operator_reconcile_errors_total{class="Transient",error="UnavailableError",kind="EngineBuild"}'
    )
    assert f"{failed} 1.0" in text
