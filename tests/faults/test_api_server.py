"""The API server goes, hangs, is shared by two operators, or holds what it would refuse today."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from enginewright_api.crd import definitions
from enginewright_cluster import kubernetes_connection, kubernetes_watch
from enginewright_cluster.port import DEPLOYMENT, JOB, LEASE, OPTIMIZED_MODEL, Cluster, InvalidError, Ref
from enginewright_operator.shell.leadership import Leadership, LeadershipLostError, Terms
from enginewright_operator.shell.operator import Operator
from tests.faults.at_work import SECONDS, Opened, beside, pods_of, ready, until, world_on
from tests.faults.link import Link, Way
from tests.kube.harness import OwnCluster
from tests.scenarios.models import SPEC, model
from tests.scenarios.test_rolling_out import B, selected
from tests.scenarios.world import World

GIVEN_SECONDS = os.environ.get("ENGINEWRIGHT_OUTAGE_SECONDS")
"""How long an outage lasts with the time limits of production; without it, one in proportion to limits that are cut."""
OUTAGE_SECONDS = float(GIVEN_SECONDS or 6.0)
"""Longer than every time limit of a request or watch, which are cut to a second or two unless the outage is given."""
RECOVERY_SECONDS = 600.0 if GIVEN_SECONDS else SECONDS
TERMS = Terms(lease_seconds=8, renew_seconds=5.0, retry_seconds=0.5)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits in proportion to the outages."""
    if GIVEN_SECONDS:
        return
    monkeypatch.setattr(kubernetes_connection, "REQUEST_SECONDS", 1.5)
    monkeypatch.setattr(kubernetes_watch, "WATCH_SECONDS", 2)
    monkeypatch.setattr(kubernetes_watch, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(kubernetes_watch, "_LONGEST_PAUSE_SECONDS", 1.0)


@pytest.mark.timeout(600 + OUTAGE_SECONDS + RECOVERY_SECONDS)
@pytest.mark.parametrize("way", ["refused", "silent"])
async def test_an_outage_in_mid_build_costs_its_own_time(
    server: OwnCluster, opened: Opened, impatient: None, way: str
) -> None:
    """The process lives on, the engine that served keeps its replicas, and the build is not begun again."""
    with server.namespace("outage") as namespace:
        world = await world_on(await opened(server.kubeconfig), namespace)
        async with beside(world.operator.run(), pods_of(world)):
            await world.apply()
            old = await ready(world)
            good, world.kubelet.builder = world.kubelet.builder, lambda attempt: None
            await world.apply(**B)
            await until(lambda: _at_work(world, 2))
            before = await _size(world, old)

            await asyncio.to_thread(_down, server, way)
            await asyncio.sleep(OUTAGE_SECONDS)
            await asyncio.to_thread(_up, server, way)

            back = time.monotonic()
            world.kubelet.builder = good
            new = await ready(world, but_not=old, seconds=RECOVERY_SECONDS)
            assert new != old
            print(f"\n{way} for {OUTAGE_SECONDS:.0f} s: rolled out {time.monotonic() - back:.1f} s after it")  # noqa: T201
            assert len(world.kubelet.attempts) == 2
            assert len(await world.names(JOB)) <= 2
            assert await _size(world, old) == before == 1, "until its requests have ended"


def _down(server: OwnCluster, way: str) -> None:
    server.signal("apiserver", SIGKILL if way == "refused" else SIGSTOP)


def _up(server: OwnCluster, way: str) -> None:
    if way == "refused":
        server.start("control")
    else:
        server.signal("apiserver", SIGCONT)


async def _at_work(world: World, builds: int) -> bool:
    return len(world.kubelet.attempts) == builds


async def _size(world: World, label: str) -> int:
    found = await world.cluster.list(DEPLOYMENT, namespace=world.namespace)
    return sum(
        item["spec"]["replicas"] for item in found if item["metadata"]["labels"]["enginewright.io/artifact"] == label
    )


class Watched:
    """When which of several operators was at work."""

    def __init__(self) -> None:
        self.moments: list[tuple[str, str]] = []
        self.at: list[float] = []

    def work(self, name: str, operator: Operator) -> Callable[[], Any]:
        async def run() -> None:
            self._note(name, "begins")
            try:
                await operator.run()
            finally:
                self._note(name, "ends")

        return run

    def _note(self, name: str, what: str) -> None:
        self.moments.append((name, what))
        self.at.append(time.monotonic())


async def test_of_two_operators_one_works_also_when_the_network_of_the_leader_hangs(
    server: OwnCluster, opened: Opened, tmp_path: Path
) -> None:
    config = yaml.safe_load(server.kubeconfig.read_text())
    address = urlsplit(config["clusters"][0]["cluster"]["server"])
    with (
        server.namespace("two") as namespace,
        Link((address.hostname or "", address.port or 443)) as link,
    ):
        config["clusters"][0]["cluster"] |= {
            "server": f"https://127.0.0.1:{link.port}", "tls-server-name": address.hostname,
        }  # fmt: skip
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        far, near = await opened(tmp_path / "config"), await opened(server.kubeconfig)
        world, lease, seen = await world_on(near, namespace), Ref(LEASE, "operator", namespace), Watched()

        def candidate(name: str, cluster: Cluster) -> Any:
            operator = Operator(cluster, world.store, world.settings, world.clock, namespace=namespace)
            return Leadership(cluster, lease, name, TERMS).run(seen.work(name, operator))

        first = asyncio.create_task(candidate("one", far))
        await until(lambda: _noted(seen, 1))
        async with beside(candidate("two", near), pods_of(world)) as (second, _):
            await world.apply()
            old = await ready(world)
            assert seen.moments == [("one", "begins")]
            link.way = Way.SILENT
            await world.apply(**B)
            new = await ready(world, but_not=old)
            assert seen.moments == [("one", "begins"), ("one", "ends"), ("two", "begins")]
            with pytest.raises(LeadershipLostError):
                await first
            assert len(world.kubelet.attempts) == 2
            link.way = Way.WELL
            async with beside(candidate("three", far)):
                await asyncio.sleep(2 * TERMS.retry_seconds)
                assert len(seen.moments) == 3, "the lease is held"
                told = time.monotonic()
                second.cancel()
                await until(lambda: _noted(seen, 5))
                assert seen.moments[3:] == [("two", "ends"), ("three", "begins")]
                assert seen.at[4] - told < TERMS.lease_seconds, "given back, not run out"
                assert await selected(world) == new


async def _noted(seen: Watched, number: int) -> bool:
    return len(seen.moments) >= number


DAMAGED: dict[str, Any] = {
    "text-for-hardware": SPEC | {"hardware": "cpu"},
    "null-hardware": SPEC | {"hardware": None},
    "unknown-task": SPEC | {"task": "Divination"},
    "two-sources": SPEC | {"source": {**SPEC["source"], "objectStore": {"uri": "ftp://x"}}},
    "text-for-replicas": SPEC | {"replicas": "three"},
    "no-source": {key: value for key, value in SPEC.items() if key != "source"},
}


UNWRITABLE = {"text-for-hardware", "null-hardware"}
"""The API server refuses every write to these, their status included: its rules cannot be evaluated on them."""


async def test_what_was_stored_before_it_was_checked_is_told_and_stops_nobody(
    server: OwnCluster, opened: Opened
) -> None:
    with server.namespace("damaged") as namespace:
        world = await world_on(await opened(server.kubeconfig), namespace)
        server.install_crds([_relaxed(each) for each in definitions()])
        for name, spec in DAMAGED.items():
            await until(lambda name=name, spec=spec: _stored(world, name, spec))  # type: ignore[misc]
        server.install_crds(definitions())
        await until(lambda: _refused(world, DAMAGED["unknown-task"]))
        async with beside(world.operator.run(), pods_of(world)):
            await world.apply("good")
            await ready(world, name="good")
            for name in DAMAGED:
                told = _event if name in UNWRITABLE else _condition
                await until(lambda name=name, told=told: told(world, name, "InvalidSpec"))  # type: ignore[misc]
            for name in DAMAGED:
                await world.cluster.delete(Ref(OPTIMIZED_MODEL, name, namespace))
            assert await world.names(OPTIMIZED_MODEL) == ["good"]


def _relaxed(definition: dict[str, Any]) -> dict[str, Any]:
    """As if there were no schema yet."""
    loose = copy.deepcopy(definition)
    for version in loose["spec"]["versions"]:
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version["schema"]["openAPIV3Schema"] = {
            "type": "object", "properties": {"spec": anything, "status": anything},
        }  # fmt: skip
        version["subresources"].pop("scale", None)
    return loose


async def _stored(world: World, name: str, spec: Any) -> bool:
    try:
        await world.cluster.create({**model(name, world.namespace), "spec": spec})
    except InvalidError:
        return False  # the schema in force is still the old one
    return True


async def _refused(world: World, spec: Any) -> bool:
    try:
        made = await world.cluster.create({**model("probe", world.namespace), "spec": spec})
    except InvalidError:
        return True
    await world.cluster.delete(Ref(OPTIMIZED_MODEL, made["metadata"]["name"], world.namespace))
    return False


async def _condition(world: World, name: str, reason: str) -> bool:
    found = (await world.model(name)).get("status", {}).get("conditions", [])
    return any(item["type"] == "Accepted" and item["reason"] == reason for item in found)


async def _event(world: World, name: str, reason: str) -> bool:
    return (name, "Warning", reason) in await world.events()
