"""Replicas that span nodes live as others do: built, counted by groups, scaled, rolled over, taken away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import yaml

from enginewright_api.names import LABEL_RANKS
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    LEADER_WORKER_SET,
    OPTIMIZED_MODEL,
    POD,
    NotFoundError,
    Object,
    Ref,
)
from tests.kube import harness as kube
from tests.scenarios.groups import CRD, GroupController
from tests.scenarios.kubelet import ready_server, unschedulable
from tests.scenarios.models import PAUSE_SECONDS, gpu_class
from tests.scenarios.world import Moving, Shifted, World

SPANNING: dict[str, Any] = {
    "task": "TextGeneration",
    "optimization": {"quantization": {"format": "FP16"}},
    "hardware": {"acceleratorClasses": ["nvidia-l4"], "acceleratorsPerReplica": 16},
    "parallelism": {"tensor": 8, "pipeline": 2},
}
LONGER: dict[str, Any] = {**SPANNING, "engine": {"limits": {"maxInputTokens": 128}}}


@pytest.fixture
async def gpus(fake_world: World) -> World:
    """Nodes of eight GPUs, and the controller of groups."""
    fake_world.add_ons = (LEADER_WORKER_SET,)
    fake_world.controllers.append(GroupController(fake_world.cluster))
    await fake_world.cluster.apply(gpu_class(acceleratorsPerNode=8))
    return fake_world


async def sets(world: World) -> list[Object]:
    """All LeaderWorkerSets."""
    return list(await world.cluster.list(LEADER_WORKER_SET, namespace=world.namespace))


async def test_a_replica_is_a_group(gpus: World) -> None:
    gpus.kubelet.server = lambda pod: unschedulable(pod) if _is_worker(pod) else ready_server(pod)
    await gpus.apply(**SPANNING)
    await gpus.settle()
    (group,) = await sets(gpus)
    assert group["spec"]["leaderWorkerTemplate"]["size"] == 2
    assert await gpus.names(DEPLOYMENT) == []
    status, reason, message = await gpus.condition("RolledOut")
    assert (status, reason) == ("Unknown", "InsufficientCapacity"), "a leader without its workers is no replica"
    assert "Unschedulable" in message

    gpus.kubelet.server = ready_server
    await gpus.settle()
    assert (await gpus.condition("Ready"))[0] == "True"
    await gpus.cluster.scale(Ref(OPTIMIZED_MODEL, "search", gpus.namespace), 3)
    await gpus.settle()
    model = await gpus.model()
    assert (await gpus.condition("Ready"))[0] == "True"
    assert model["status"]["replicas"] == model["status"]["target"]["replicas"] == 3
    assert len(await gpus.names(POD)) - 1 == 3 * 2, "and the builder's"
    selected = dict(item.split("=") for item in model["status"]["selector"].split(","))
    leaders = await gpus.cluster.list(POD, namespace=gpus.namespace, labels=selected)
    assert len(leaders) == 3, "autoscalers that count pods count groups"


async def test_a_new_engine_takes_over_group_by_group(gpus: World) -> None:
    await gpus.apply(**SPANNING, replicas=2)
    await gpus.settle()
    (old,) = await sets(gpus)
    await gpus.apply(**LONGER, replicas=2)
    await gpus.settle()
    assert len(await sets(gpus)) == 2, "requests in flight at the old engine may end"
    assert (await gpus.condition("Servable"))[0] == "True"
    await gpus.wait_for(PAUSE_SECONDS + 1)
    (new,) = await sets(gpus)
    assert new["metadata"]["name"] != old["metadata"]["name"]
    assert (await gpus.condition("Ready"))[0] == "True"
    assert all(pod.startswith(new["metadata"]["name"]) for pod in await gpus.names(POD) if not pod.startswith("eb-"))


async def test_a_set_that_was_changed_by_hand_is_repaired(gpus: World) -> None:
    await gpus.apply(**SPANNING)
    await gpus.settle()
    (group,) = await sets(gpus)
    change = {"spec": {"leaderWorkerTemplate": {"restartPolicy": "None"}}}
    await gpus.cluster.patch(Ref(LEADER_WORKER_SET, group["metadata"]["name"], gpus.namespace), change)
    await gpus.settle()
    assert (await sets(gpus))[0]["spec"]["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"


async def test_what_a_class_says_of_its_nodes_may_come_late(gpus: World) -> None:
    """Without it a replica is one pod, which no node has room for; what works by now is left as it is."""
    await gpus.cluster.apply(gpu_class())
    gpus.kubelet.server = unschedulable
    await gpus.apply(**SPANNING)
    await gpus.settle()
    assert (len(await gpus.names(DEPLOYMENT)), len(await sets(gpus))) == (1, 0)
    await gpus.cluster.apply(gpu_class(acceleratorsPerNode=8))
    gpus.kubelet.server = ready_server
    await gpus.settle()
    assert (await gpus.names(DEPLOYMENT), len(await sets(gpus))) == ([], 1)
    assert (await gpus.condition("Ready"))[0] == "True"
    await gpus.cluster.apply(gpu_class(acceleratorsPerNode=4))
    await gpus.settle()
    assert (await sets(gpus))[0]["spec"]["leaderWorkerTemplate"]["size"] == 2
    assert (await gpus.condition("Ready"))[0] == "True"


class WithoutAddOn(FakeCluster):
    """A cluster that knows no LeaderWorkerSets, until they are installed."""

    installed = False

    async def list(self, kind: Any, **selection: Any) -> Any:
        if kind == LEADER_WORKER_SET and not self.installed:
            raise NotFoundError("NotFound", "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet is not served")
        return await super().list(kind, **selection)


async def test_the_add_on_may_come_late() -> None:
    clock = Moving()
    cluster = WithoutAddOn(now=clock)
    world = World(cluster, clock=clock)
    await world.give_class()
    await cluster.apply(gpu_class(acceleratorsPerNode=8))
    await world.apply("small")
    await world.apply("large", **SPANNING)
    await world.settle()
    assert (await world.condition("Ready", "small"))[0] == "True", "models of one node do not need it"
    assert (await world.condition("Stalled", "large"))[:2] == ("True", "LeaderWorkerSetNotInstalled")
    cluster.installed = True
    world.add_ons = (LEADER_WORKER_SET,)
    world.controllers.append(GroupController(cluster))
    await world.settle()
    assert (await world.condition("Ready", "large"))[0] == "True"


async def test_groups_find_their_nodes(kube_crds: kube.Cluster, kube_namespace: str) -> None:
    """On a real API server and scheduler: one pod a node, all its GPUs, and the model is ready when they are."""
    definition = yaml.load(CRD.read_text(), Loader=yaml.CSafeLoader)
    kube_crds.install_crds([definition])
    where = {"spanning": kube_namespace}
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    name = f"gpu-{kube_namespace}"
    scheduling = {"nodeSelector": where, "tolerations": tolerations}
    hardware = {"acceleratorClasses": [name], "acceleratorsPerReplica": 16}
    cluster = await KubernetesCluster.from_kubeconfig(kube_crds.kubeconfig)
    world = World(cluster, clock=Shifted(), real=True, namespace=kube_namespace)
    world.add_ons = (LEADER_WORKER_SET,)
    world.controllers.append(GroupController(cluster, kube_namespace))
    world.kubelet.server = lambda pod: {}  # the nodes speak for themselves
    try:
        await cluster.apply(gpu_class(name, acceleratorsPerNode=8, scheduling=scheduling))
        await world.apply(**{**SPANNING, "hardware": hardware}, replicas=2)
        await world.settle()
        assert (await world.condition("RolledOut"))[:2] == ("Unknown", "InsufficientCapacity")
        # Only now: such nodes would end the builder's Job by themselves.
        with kube_crds.fake_gpu_nodes(4, labels=where) as nodes:
            async with asyncio.timeout(60):
                while (await world.condition("Ready"))[0] != "True":
                    await world.settle()
            pods = await cluster.list(POD, namespace=kube_namespace, labels={LABEL_RANKS: "true"})
            assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted(nodes)
            assert (await world.model())["status"]["replicas"] == 2
            (slices,) = await cluster.list(ENDPOINT_SLICE, namespace=kube_namespace)
            assert len(slices["endpoints"]) == 2, "leaders alone get requests"
    finally:
        await cluster.delete(Ref(ACCELERATOR_CLASS, name))
        await cluster.close()


def _is_worker(pod: Object) -> bool:
    return bool(pod["metadata"]["labels"]["app.kubernetes.io/component"] == "worker")
