"""Several accelerator classes on a real API server and scheduler, whose nodes come and go."""

from __future__ import annotations

import asyncio
import contextlib

from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import ACCELERATOR_CLASS, DEPLOYMENT, ENDPOINT_SLICE, ENGINE_BUILD, POD, Ref
from enginewright_operator.core.class_choice import GONE_SECONDS
from tests.kube import harness as kube
from tests.scenarios.models import PAUSE_SECONDS, beside_kwok, kwok_class
from tests.scenarios.test_several_classes import COUNTED_AFTER
from tests.scenarios.world import Shifted, World


async def test_a_model_whose_nodes_are_gone_moves_to_the_next_class(
    kube_crds: kube.Cluster, kube_namespace: str
) -> None:
    names = [f"{name}-{kube_namespace}" for name in ("absent", "fast", "slow")]
    absent, fast, slow = names
    cluster = await KubernetesCluster.from_kubeconfig(kube_crds.kubeconfig)
    world = World(cluster, clock=Shifted(), operator_settings=beside_kwok(), real=True, namespace=kube_namespace)
    world.kubelet.server = lambda pod: {}  # the nodes speak for themselves
    try:
        with contextlib.ExitStack() as others, contextlib.ExitStack() as pool:
            (lost,) = pool.enter_context(kube_crds.fake_gpu_nodes(1, labels={"pool": fast}))
            (left,) = others.enter_context(kube_crds.fake_gpu_nodes(1, labels={"pool": slow}))
            for name, capability in zip(names, ("10.0", "9.0", "8.9"), strict=True):
                await cluster.apply(kwok_class(name, computeCapability=capability))
            await world.apply(
                task="TextGeneration",
                optimization={"quantization": {"format": "FP16"}},
                hardware={"acceleratorClasses": names, "acceleratorsPerReplica": 8},
                parallelism={"tensor": 8},
            )
            await until_served_from(world, lost)
            assert await choice(world) == (fast, names)
            assert f"; {absent}: no nodes since " in (await world.condition("Accepted"))[2]
            assert (await world.condition("Ready"))[0] == "True"

            kube_crds.kubectl("cordon", lost)  # or its pod would come back in the moment before it is gone
            pool.close()
            await world.wait_for(COUNTED_AFTER)
            assert await choice(world) == (fast, names), "nodes are often back at once"
            assert await serving(world) == []
            await world.wait_for(GONE_SECONDS)
            await until_served_from(world, left)
            assert await choice(world) == (slow, names)
            assert [attempt.accelerator_class for attempt in world.kubelet.attempts] == [fast, slow]
            assert ("search", "Normal", "AcceleratorClassChanged") in await world.events()
            await world.wait_for(PAUSE_SECONDS + 1)
            assert (await world.condition("Ready"))[0] == "True"
            assert (await world.model())["status"]["active"]["acceleratorClass"] == slow
            assert (len(await world.names(DEPLOYMENT)), len(await world.names(ENGINE_BUILD))) == (1, 1)
            assert await serving(world) == [left]
    finally:
        for name in names:
            await cluster.delete(Ref(ACCELERATOR_CLASS, name))
        await cluster.close()


async def until_served_from(world: World, node: str) -> None:
    """Until the scheduler, the controllers and the nodes have done their part."""
    try:
        async with asyncio.timeout(2 * COUNTED_AFTER):  # a node that was not counted the first time is at the second
            await world.settle()
            while await serving(world) != [node]:
                await world.settle()
    except TimeoutError:
        pods = await world.cluster.list(POD, namespace=world.namespace)
        seen = {pod["metadata"]["name"]: (pod["spec"].get("nodeName"), pod["status"]) for pod in pods}
        raise AssertionError(f"{(await world.model()).get('status')}; pods: {seen}") from None


async def choice(world: World) -> tuple[str, list[str]]:
    """What the status says: the class taken, and the list that it was taken from."""
    found = (await world.model())["status"]["classChoice"]
    return found["taken"], found["listed"]


async def serving(world: World) -> list[str]:
    """Nodes of the pods that get the requests."""
    (slices,) = await world.cluster.list(
        ENDPOINT_SLICE, namespace=world.namespace, labels={"kubernetes.io/service-name": "search"}
    )
    ready = [item["targetRef"]["name"] for item in slices["endpoints"] or () if item["conditions"]["ready"]]
    pods = await world.cluster.list(POD, namespace=world.namespace)
    return [pod["spec"]["nodeName"] for pod in pods if pod["metadata"]["name"] in ready]
