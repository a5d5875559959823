"""From an engine to requests: switching, never-ready engines, going back, replicas."""

from __future__ import annotations

from enginewright_cluster.port import CONFIG_MAP, DEPLOYMENT, ENGINE_BUILD, JOB, OPTIMIZED_MODEL, SERVICE, Object, Ref
from tests.scenarios.kubelet import crashing_server, ready_server, refusing_admission, unschedulable
from tests.scenarios.models import PAUSE_SECONDS
from tests.scenarios.world import World

B = {"engine": {"limits": {"maxInputTokens": 128}}}
"""Another recipe, so another engine."""


async def selected(world: World, name: str = "search") -> str:
    """Artifact label that the Service selects."""
    service = await world.one(SERVICE, name)
    assert service is not None
    return str(service["spec"]["selector"].get("enginewright.io/artifact", ""))


async def active(world: World, name: str = "search") -> str:
    """Digest of the engine that serves, as a label."""
    return str((await world.model(name))["status"]["active"]["artifactDigest"])[:32]


async def test_new_engine_takes_over_only_when_it_is_ready(world: World) -> None:
    await world.apply()
    await world.settle()
    old = await selected(world)
    world.kubelet.server = lambda pod: only(pod, old)
    await world.apply(**B)
    await world.settle()
    assert len(await world.names(DEPLOYMENT)) == 2
    assert await selected(world) == old == await active(world)
    assert (await world.condition("RolledOut"))[0] == "Unknown"
    assert (await world.condition("Servable"))[0] == "True"
    world.kubelet.server = ready_server
    await world.settle()
    new = await selected(world)
    assert new != old
    assert new == await active(world)
    assert len(await world.names(DEPLOYMENT)) == 2, "requests in flight at the old engine may end"
    await world.wait_for(PAUSE_SECONDS + 1)
    assert len(await world.names(DEPLOYMENT)) == 1
    assert (await world.condition("Ready"))[0] == "True"
    assert len(await world.names(ENGINE_BUILD)) == 1


async def test_never_ready_engine_leaves_the_old_one_serving(world: World) -> None:
    await world.apply()
    await world.settle()
    old = await selected(world)
    world.kubelet.server = lambda pod: only(pod, old, crashing_server(pod))
    await world.apply(**B)
    await world.settle()
    assert (await world.condition("RolledOut"))[:2] == ("Unknown", "Progressing")
    await world.wait_for(901)
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "ProgressDeadlineExceeded")
    assert "ended with signal 11" in message
    await world.wait_for(901)
    assert (await world.condition("RolledOut"))[1] == "ProgressDeadlineExceeded"
    assert (await world.condition("Servable"))[0] == "True"
    assert (await world.condition("Ready"))[0] == "False"
    assert (await world.condition("Stalled"))[0] == "True"
    last = (await world.model())["status"]["lastFailure"]
    assert (last["stage"], last["reason"], last["exitCode"]) == ("Rollout", "ServerDied", 1)
    assert await selected(world) == old == await active(world)
    assert ("search", "Warning", "ProgressDeadlineExceeded") in await world.events()
    # Back to what worked: no build, and the failure is forgotten.
    attempts = len(world.kubelet.attempts)
    await world.apply()
    await world.settle()
    assert (await world.condition("Ready"))[0] == "True"
    assert len(world.kubelet.attempts) == attempts
    assert "lastFailure" not in (await world.model())["status"]
    assert len(await world.names(DEPLOYMENT)) == 1


async def test_refused_artifact_is_told_at_once(world: World) -> None:
    world.kubelet.server = refusing_admission("DigestMismatch", "manifest.json is not what was built")
    await world.apply()
    await world.settle()
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("False", "DigestMismatch")
    assert "manifest.json is not what was built" in message
    assert (await world.model())["status"]["lastFailure"]["exitCode"] == 20
    assert (await world.condition("Servable"))[0] == "Unknown"
    assert "active" not in (await world.model())["status"]


async def test_lack_of_room_is_named(world: World) -> None:
    world.kubelet.server = unschedulable
    await world.apply()
    await world.settle()
    status, reason, message = await world.condition("RolledOut")
    assert (status, reason) == ("Unknown", "InsufficientCapacity")
    assert "nodes" in message


async def test_going_back_needs_no_build(world: World) -> None:
    await world.apply()
    await world.settle()
    first = await active(world)
    await world.apply(**B)
    await world.settle()
    await world.wait_for(PAUSE_SECONDS + 1)
    assert await active(world) != first
    await world.apply()
    await world.settle()
    await world.wait_for(PAUSE_SECONDS + 1)
    assert await active(world) == first
    assert len(world.kubelet.attempts) == 2
    assert (await world.condition("Ready"))[0] == "True"


async def test_same_key_after_the_model_was_deleted_needs_no_job(world: World) -> None:
    await world.apply()
    await world.settle()
    await world.cluster.delete(Ref(OPTIMIZED_MODEL, "search", world.namespace))
    await world.settle()
    await world.apply("again")
    await world.settle()
    assert (await world.condition("Ready", "again"))[0] == "True"
    assert len(world.kubelet.attempts) == 1
    assert await world.names(JOB) == []


async def test_deleting_in_mid_build_leaves_nothing(world: World) -> None:
    world.kubelet.builder = lambda attempt: None
    await world.apply()
    await world.settle()
    assert len(await world.names(JOB)) == 1
    await world.cluster.delete(Ref(OPTIMIZED_MODEL, "search", world.namespace))
    await world.settle()
    left = {name for name in await world.versions() if not name.startswith(("Event/", "ConfigMap/kube-root-ca"))}
    assert left == set()


async def test_deleting_one_of_two_models_keeps_the_build(world: World) -> None:
    await world.apply("one")
    await world.apply("two")
    await world.settle()
    await world.cluster.delete(Ref(OPTIMIZED_MODEL, "one", world.namespace))
    await world.settle()
    assert len(await world.names(ENGINE_BUILD)) == 1
    assert (await world.condition("Ready", "two"))[0] == "True"


async def test_spec_change_in_mid_build_drops_the_build(world: World) -> None:
    good = world.published()
    world.kubelet.builder = lambda attempt: None
    await world.apply()
    await world.settle()
    former = await world.names(ENGINE_BUILD)
    world.kubelet.builder = good
    await world.apply(**B)
    await world.settle()
    assert (await world.condition("Ready"))[0] == "True"
    assert not set(former) & set(await world.names(ENGINE_BUILD))


async def test_replicas_alone_are_no_rollout(world: World) -> None:
    await world.apply()
    await world.settle()
    ref = Ref(OPTIMIZED_MODEL, "search", world.namespace)
    await world.cluster.scale(ref, 3)
    await world.round()
    assert (await world.condition("RolledOut"))[0] == "True"
    assert (await world.condition("Reconciling"))[0] == "False"
    await world.settle()
    status = (await world.model())["status"]
    assert (status["replicas"], status["active"]["replicas"]) == (3, 3)
    assert status["observedGeneration"] == (await world.model())["metadata"]["generation"]


async def test_replicas_follow_while_another_engine_is_built(world: World) -> None:
    await world.apply()
    await world.settle()
    world.kubelet.builder = lambda attempt: None
    await world.apply(**B)
    await world.settle()
    await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", world.namespace), 2)
    await world.settle()
    assert (await world.model())["status"]["active"]["replicas"] == 2


async def test_zero_replicas_are_said_to_be_asleep(world: World) -> None:
    await world.apply()
    await world.settle()
    await world.cluster.scale(Ref(OPTIMIZED_MODEL, "search", world.namespace), 0)
    await world.settle()
    assert (await world.condition("Servable"))[:2] == ("False", "ScaledToZero")


async def test_batching_changes_pods_but_builds_nothing(world: World) -> None:
    await world.apply()
    await world.settle()
    files = await world.names(CONFIG_MAP)
    await world.apply(batching={"maxQueueDelayMicroseconds": 500})
    await world.settle()
    assert (await world.condition("Ready"))[0] == "True"
    assert len(world.kubelet.attempts) == 1
    assert [name for name in files if "-batching-" in name] != [
        name for name in await world.names(CONFIG_MAP) if "-batching-" in name
    ]


async def test_pause_stops_where_it_is(world: World) -> None:
    await world.apply()
    await world.settle()
    old = await selected(world)
    await world.apply(**B, rollout={"paused": True})
    await world.settle()
    assert (await world.condition("RolledOut"))[:2] == ("False", "Paused")
    assert await selected(world) == old
    assert len(await world.names(DEPLOYMENT)) == 1
    await world.apply(**B)
    await world.settle()
    assert await selected(world) != old


async def test_crashed_replicas_are_told_with_their_cause(world: World) -> None:
    await world.apply()
    await world.settle()
    world.kubelet.server = crashing_server
    await world.settle()
    status, reason, message = await world.condition("Servable")
    assert (status, reason) == ("False", "NoReadyReplica")
    assert "ended with signal 11" in message
    assert (await world.condition("RolledOut"))[0] == "True"


async def test_drift_of_a_child_is_repaired(world: World) -> None:
    await world.apply()
    await world.settle()
    name = (await world.names(DEPLOYMENT))[0]
    await world.cluster.patch(Ref(DEPLOYMENT, name, world.namespace), {"spec": {"progressDeadlineSeconds": 7}})
    await world.settle()
    deployment = await world.one(DEPLOYMENT, name)
    assert deployment is not None
    assert deployment["spec"]["progressDeadlineSeconds"] == 900


def only(pod: Object, label: str, otherwise: Object | None = None) -> Object:
    """Pods of one engine are ready, those of others are not."""
    if pod["metadata"]["labels"]["enginewright.io/artifact"] == label:
        return ready_server(pod)
    return otherwise or {"phase": "Pending", "conditions": []}
