"""Objects as the operator leaves them at each station of a model's life: what GitOps tools have to judge."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from enginewright_api.errors import FailureClass
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import ACCELERATOR_CLASS, ENGINE_BUILD, OPTIMIZED_MODEL, Object, Ref
from tests.scenarios.evidence import failure
from tests.scenarios.kubelet import crashing_server
from tests.scenarios.world import Moving, World

OTHER_ENGINE = {"engine": {"limits": {"maxInputTokens": 128}}}
STALE = {"desired": 1, "state": "MetricsStale", "reason": "MetricsStale: the oldest signal is 90 s old"}


async def life() -> dict[str, Object]:
    """Station to object."""
    return {**await _models(), **await _failures(), **await _others()}


def _world() -> World:
    clock = Moving()
    return World(FakeCluster(now=clock), clock=clock)


async def _models() -> dict[str, Object]:
    found, world = {}, _world()
    await world.apply()
    # What the API server writes by the definition's default, before the operator came.
    found["new"] = {**await world.model(), "status": {"observedGeneration": -1}}
    await world.give_class()
    await world.round()
    found["building"] = await world.model()
    await world.settle()
    found["ready"] = ready = await world.model()
    changed = copy.deepcopy(ready)
    changed["metadata"]["generation"] += 1
    found["changed"] = changed
    deleted = copy.deepcopy(ready)
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
    found["deleting"] = deleted
    address = Ref(OPTIMIZED_MODEL, "search", world.namespace)
    stale = {**STALE, "lastDecision": "2026-01-01T00:00:00Z"}
    objectives = {"mode": "Objectives", "objectives": {"queueDepthPerReplica": 4}}
    await world.apply(scaling=objectives)
    await world.cluster.patch_status(address, {"scaling": stale})
    await world.settle()
    found["metrics-stale"] = await world.model()
    return found


async def _failures() -> dict[str, Object]:
    found, world = {}, _world()
    await world.apply()
    await world.settle()
    found["class-unknown"] = await world.model()

    world = _world()
    world.kubelet.builder = lambda attempt: failure(
        attempt.key, FailureClass.DETERMINISTIC, "UnsupportedOperator", "operator Foo has no kernel; exclude it"
    )
    await world.give_class()
    await world.apply()
    await world.settle()
    found["build-failed"] = await world.model()
    (name,) = await world.names(ENGINE_BUILD)
    found["enginebuild-failed"] = await world.cluster.get(Ref(ENGINE_BUILD, name, world.namespace))

    world = _world()
    await world.give_class()
    await world.apply()
    await world.settle()
    world.kubelet.server = crashing_server
    await world.apply(**OTHER_ENGINE)
    await world.settle()
    found["rolling-out"] = await world.model()
    await world.wait_for(timedelta(minutes=16).total_seconds())
    found["rollout-failed"] = await world.model()
    await world.apply(rollout={"paused": True}, **OTHER_ENGINE)
    await world.settle()
    found["paused"] = await world.model()
    return found


async def _others() -> dict[str, Object]:
    found, world = {}, _world()
    await world.give_class()
    await world.apply()
    await world.settle()
    (name,) = await world.names(ENGINE_BUILD)
    found["enginebuild-succeeded"] = await world.cluster.get(Ref(ENGINE_BUILD, name, world.namespace))
    found["acceleratorclass-ready"] = await world.cluster.get(Ref(ACCELERATOR_CLASS, "cpu"))
    return found


def shortened(manifest: Object) -> dict[str, Any]:
    """What health is judged by, for a fixture that a person reads."""
    status = {
        key: manifest.get("status", {})[key]
        for key in ("observedGeneration", "conditions")
        if key in manifest.get("status", {})
    }
    metadata = {
        key: manifest["metadata"][key]
        for key in ("name", "generation", "deletionTimestamp")
        if key in manifest["metadata"]
    }
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata, "status": status}
