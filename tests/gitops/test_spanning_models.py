"""On a real API server: a model whose replicas span nodes goes through canaries, and what kstatus makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import yaml

from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    LEADER_WORKER_SET,
    SERVICE,
    Object,
    Ref,
)
from tests.gitops.conftest import Kstatus
from tests.kube import harness as kube
from tests.scenarios.groups import CRD, GroupController
from tests.scenarios.models import PAUSE_SECONDS, beside_kwok, kwok_class
from tests.scenarios.test_canaries import CANARY, answers, rollout
from tests.scenarios.test_rolling_out import selected
from tests.scenarios.test_spanning_nodes import SPANNING
from tests.scenarios.world import Shifted, World


async def test_groups_take_their_share_of_the_requests(
    kube_crds: kube.Cluster, kube_namespace: str, kstatus: Kstatus
) -> None:
    kube_crds.install_crds([yaml.load(CRD.read_text(), Loader=yaml.CSafeLoader)])
    cluster = await KubernetesCluster.from_kubeconfig(kube_crds.kubeconfig)
    name = f"gpu-{kube_namespace}"
    world = World(cluster, clock=Shifted(), operator_settings=beside_kwok(), real=True, namespace=kube_namespace)
    world.add_ons = (LEADER_WORKER_SET,)
    world.controllers.append(GroupController(cluster, kube_namespace))
    world.kubelet.server = lambda pod: {}  # the nodes speak for themselves

    async def applied(tokens: int) -> None:
        hardware = {"acceleratorClasses": [name], "acceleratorsPerReplica": 16}
        spec: dict[str, Any] = {**SPANNING, "hardware": hardware, "engine": {"limits": {"maxInputTokens": tokens}}}
        await world.apply(**spec, replicas=2, rollout=CANARY)

    async def judged() -> str:
        (found,) = kstatus([await world.model()])
        return found

    try:
        await cluster.apply(kwok_class(name, acceleratorsPerNode=8))
        await applied(64)
        assert await judged() == "InProgress", "nobody has looked at it yet"
        with kube_crds.fake_gpu_nodes(8, labels={"pool": name}):
            await until(world, is_ready)
            assert await judged() == "Current"
            await until_endpoints(world, {"search": 2})
            old = await selected(world)

            await applied(128)
            await until(world, share(5))
            new = await canary(world)
            assert ((await judged()), await selected(world)) == ("InProgress", old)
            await until_endpoints(world, {"search": 2, f"search-{new[:8]}": 1})  # of leaders alone
            world.gateways.stable, world.gateways.canary = answers(1000), answers(60)
            world.clock.forward(301)
            await until(world, share(50))
            assert await selected(world) == old
            world.clock.forward(601)
            await until(world, lambda status: status["active"]["artifactDigest"].startswith(new))
            world.clock.forward(PAUSE_SECONDS + 1)
            await until(world, is_ready)
            assert await selected(world) == new
            assert len(await world.names(LEADER_WORKER_SET)) == 1
            assert await judged() == "Current"
            await until_endpoints(world, {"search": 2})

            await applied(256)
            await until(world, share(5))
            assert await canary(world) != new
            world.gateways.canary = answers(200, failures=20)
            world.clock.forward(11)
            await until(world, share(0))
            assert (await judged(), (await rollout(world))["state"]) == ("Failed", "RolledBack")
            assert await selected(world) == new
            await until_endpoints(world, {"search": 2})
            assert await world.names(DEPLOYMENT) == []
    finally:
        await cluster.delete(Ref(ACCELERATOR_CLASS, name))
        await cluster.close()


async def until(world: World, reached: Callable[[Object], bool]) -> None:
    """Until the status says so: scheduler, controllers and nodes take their time."""
    async with asyncio.timeout(60):
        while True:
            await world.round()
            await world.step()
            if reached((await world.model())["status"]):
                return
            await asyncio.sleep(0.05)


def is_ready(status: Object) -> bool:
    """What `kubectl wait --for=condition=Ready` waits for."""
    return any(item["type"] == "Ready" and item["status"] == "True" for item in status["conditions"])


def share(percent: int) -> Callable[[Object], bool]:
    """Whether the canary gets so much of the requests; 0 with none."""
    return lambda status: status.get("rollout", {}).get("weight", 0) == percent


async def canary(world: World) -> str:
    """The label of the engine that its own Service selects."""
    label = str((await rollout(world))["artifactDigest"]).removeprefix("sha256:")[:32]
    service = await world.one(SERVICE, f"search-{label[:8]}")
    assert service is not None
    assert service["spec"]["selector"]["enginewright.io/artifact"] == label
    return label


async def until_endpoints(world: World, wanted: dict[str, int]) -> None:
    """Until each Service has so many that are ready, as the real controller counts them."""
    async with asyncio.timeout(30):
        while True:
            slices = await world.cluster.list(ENDPOINT_SLICE, namespace=world.namespace)
            found = {
                item["metadata"]["labels"]["kubernetes.io/service-name"]: sum(
                    endpoint["conditions"]["ready"] for endpoint in item["endpoints"] or ()
                )
                for item in slices
            }
            if found == wanted:
                return
            await asyncio.sleep(0.1)
