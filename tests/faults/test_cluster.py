"""What happens in a cluster around the operator: a namespace goes, a node is lost."""

from __future__ import annotations

import logging

import pytest

from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    Cluster,
    NotFoundError,
    Ref,
)
from tests.faults.at_work import Opened, beside, pods_of, ready, until, world_on
from tests.kube.harness import Cluster as RealCluster
from tests.scenarios.models import PAUSE_SECONDS, beside_kwok, kwok_class
from tests.scenarios.test_nodes_that_go import serving, until_served_from
from tests.scenarios.test_rolling_out import B
from tests.scenarios.world import Shifted, World


async def test_a_namespace_that_is_deleted_takes_everything_along_and_is_left_in_peace(
    kube_crds: RealCluster, opened: Opened, kube_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One model serves and one is being built. The operator must not fight what a namespace's end refuses."""
    cluster = await opened(kube_crds.kubeconfig)
    namespace = await _namespace(cluster, kube_namespace)
    world = await world_on(cluster, namespace)
    caplog.set_level(logging.WARNING)
    async with beside(world.operator.run(), pods_of(world)):
        await world.apply("serving")
        await ready(world, name="serving")
        good, world.kubelet.builder = world.kubelet.builder, lambda attempt: None
        await world.apply("built", **B)
        await until(lambda: _are(world, 2))
        await cluster.delete(Ref(NAMESPACE, namespace))
        await until(lambda: _gone(cluster, namespace))
        await until(lambda: _forgotten(world))
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        # The same names again: nothing is left of the former ones that could be mistaken for them.
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        world.kubelet.builder = good
        await world.apply("serving")
        await ready(world, name="serving")
        assert len(await world.names(ENGINE_BUILD)) == 1
    await cluster.delete(Ref(NAMESPACE, namespace))


async def test_a_lost_node_costs_an_attempt_and_a_replica_for_a_while(
    kube_crds: RealCluster, opened: Opened, kube_namespace: str
) -> None:
    """Its pods are removed by force, as cloud controllers do: no report comes, and no last status."""
    world = await world_on(await opened(kube_crds.kubeconfig), kube_namespace)
    async with beside(world.operator.run(), pods_of(world)):
        await world.apply()
        await ready(world)
        lost = await _pods(world, "server")
        kube_crds.kubectl("delete", "pod", *lost, f"--namespace={kube_namespace}", "--force", "--grace-period=0")
        await until(lambda: _replaced(world, lost))
        await until(lambda: _holds(world, "Ready"))
        good, world.kubelet.builder = world.kubelet.builder, lambda attempt: None
        await world.apply(**B)
        await until(lambda: _are(world, 2))
        await until(lambda: _runs(world, "builder"))
        lost = await _pods(world, "builder")
        kube_crds.kubectl("delete", "pod", *lost, f"--namespace={kube_namespace}", "--force", "--grace-period=0")
        await until(lambda: _waits(world))
        world.kubelet.builder = good
        world.clock.forward(PAUSE_SECONDS + 1)
        await world.cluster.patch(  # anything that wakes it: its timer runs by the real clock
            Ref(ENGINE_BUILD, await _waiting(world), kube_namespace), {"metadata": {"annotations": {"look": "now"}}}
        )
        await until(lambda: _are(world, 3))
        assert [attempt.number for attempt in world.kubelet.attempts] == [1, 1, 2]
        await until(lambda: _engines(world, 2))


async def test_a_pod_that_is_stuck_on_a_node_out_of_reach_is_replaced_elsewhere(
    kube_crds: RealCluster, opened: Opened, kube_namespace: str
) -> None:
    """The node stops to report and nobody removes its pod: it stays Terminating for as long as the node is away.

    What the cluster does by itself comes early: a node counts as lost after 50 seconds, its pods are deleted 300 later.
    """
    cluster, pool = await opened(kube_crds.kubeconfig), f"pool-{kube_namespace}"
    world = World(cluster, clock=Shifted(), operator_settings=beside_kwok(), real=True, namespace=kube_namespace)
    world.kubelet.server = lambda pod: {}  # the nodes speak for themselves
    await cluster.apply(kwok_class(pool))
    try:
        with kube_crds.fake_gpu_nodes(2, labels={"pool": pool}) as nodes:
            await world.apply(
                task="TextGeneration",
                optimization={"quantization": {"format": "FP16"}},
                hardware={"acceleratorClasses": [pool], "acceleratorsPerReplica": 8},
                parallelism={"tensor": 8},
            )
            while not (served := await _settled_serving(world)):
                pass
            (lost,) = served
            (other,) = set(nodes) - {lost}
            (stuck,) = await _pods(world, "server")
            kube_crds.kubectl("label", "node", lost, "kwok-")  # its kubelet is gone
            unknown = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]
            await cluster.patch_status(Ref(NODE, lost), {"conditions": unknown})
            kube_crds.kubectl("delete", "pod", stuck, f"--namespace={kube_namespace}", "--wait=false")

            await until_served_from(world, other)
            await world.settle()
            pod = await cluster.get(Ref(POD, stuck, kube_namespace))
            assert pod["metadata"].get("deletionTimestamp"), "still there, and in nobody's way"
            assert pod["spec"]["nodeName"] == lost
            assert (await world.condition("Ready"))[0] == "True"
            assert (await world.model())["status"]["replicas"] == 1
            assert [attempt.number for attempt in world.kubelet.attempts] == [1], "its engine is not built again"
            before = await world.steady_versions()
            await world.wait_for(2 * PAUSE_SECONDS)
            assert await world.steady_versions() == before, "nothing more to write about it"
    finally:
        await cluster.delete(Ref(ACCELERATOR_CLASS, pool))


async def _settled_serving(world: World) -> list[str]:
    await world.settle()
    return await serving(world)


async def _namespace(cluster: Cluster, beside_: str) -> str:
    name = f"{beside_}-gone"
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


async def _gone(cluster: Cluster, namespace: str) -> bool:
    try:
        await cluster.get(Ref(NAMESPACE, namespace))
    except NotFoundError:
        return True
    return False


async def _forgotten(world: World) -> bool:
    """Nothing of the namespace is to be visited again."""
    return not [key for key in world.operator.queue._waiting._due if key.namespace == world.namespace]


async def _are(world: World, attempts: int) -> bool:
    return len(world.kubelet.attempts) >= attempts


async def _engines(world: World, number: int) -> bool:
    return len(await world.names(DEPLOYMENT)) == number


async def _pods(world: World, component: str) -> list[str]:
    labels = {"app.kubernetes.io/component": component}
    found = await world.cluster.list(POD, namespace=world.namespace, labels=labels)
    return [item["metadata"]["name"] for item in found if item["status"].get("phase") == "Running"]


async def _runs(world: World, component: str) -> bool:
    return bool(await _pods(world, component))


async def _replaced(world: World, lost: list[str]) -> bool:
    return bool(set(await _pods(world, "server")) - set(lost))


async def _holds(world: World, type_: str) -> bool:
    return (await world.condition(type_))[0] == "True"


async def _waiting(world: World) -> str:
    found = await world.cluster.list(ENGINE_BUILD, namespace=world.namespace)
    return next((item["metadata"]["name"] for item in found if item.get("status", {}).get("retryAfter")), "")


async def _waits(world: World) -> bool:
    jobs = await world.cluster.list(JOB, namespace=world.namespace)
    failed = [
        item
        for job in jobs
        for item in job.get("status", {}).get("conditions", ())
        if item["type"] == "Failed" and item["status"] == "True"
    ]
    return bool(failed) and bool(await _waiting(world))
