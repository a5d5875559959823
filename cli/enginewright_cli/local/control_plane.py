"""The control plane of this machine: a node agent, and operator, gateway and autoscaler running under it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.errors import DeterministicError
from enginewright_cli.local.components import SYSTEM_NAMESPACE, namespace_objects, system_objects
from enginewright_cli.state import StateDirectory
from enginewright_cluster.local import DATABASE, LocalCluster
from enginewright_cluster.port import DEPLOYMENT, POD, Cluster, Object


@dataclass(frozen=True, slots=True)
class Options:
    """What `up` may be told."""

    http_port: int
    grpc_port: int
    scale_down_seconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """One program of the control plane and how it stands."""

    name: str
    ready: str
    restarts: str
    is_ready: bool


def open_cluster(state: StateDirectory) -> LocalCluster:
    """The objects of this machine. DeterministicError when `up` never ran here."""
    if not database(state).exists():
        raise DeterministicError(
            "NotRunning", f"there is no control plane in {state.root}; start one with: enginewright up --detach"
        )
    return LocalCluster(state.root)


def database(state: StateDirectory) -> Path:
    """Where the objects are."""
    return state.root / DATABASE


async def run(state: StateDirectory, options: Options, *, announce: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT. Whatever ran before a crash is started again from the objects."""
    # Imported here, as below: every command opens the cluster, few run it.
    from enginewright_cli.local.daemon import holding_lock
    from enginewright_cli.local.doors import check_ports
    from enginewright_cli.local.keys import ensure_keys
    from enginewright_cluster.agent.agent import Agent

    with holding_lock(state, options):
        check_ports(http_port=options.http_port, grpc_port=options.grpc_port)
        ensure_keys(state)
        cluster = LocalCluster(state.root)
        try:
            await bootstrap(cluster, state, options)
            announce(
                f"control plane: state in {state.root}, gateway at http://127.0.0.1:{options.http_port}; stop with ^C"
            )
            agent = asyncio.create_task(Agent(cluster).run())
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            waiting = asyncio.create_task(stop.wait())
            await asyncio.wait({agent, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if agent.done():
                agent.result()
            announce("control plane: stopping")
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)
        finally:
            await cluster.close()


async def bootstrap(cluster: Cluster, state: StateDirectory, options: Options) -> None:
    """The objects that local mode begins with; whatever is as it should be is left alone."""
    from enginewright_cli.local.accelerators import detect_cpu

    for name in (SYSTEM_NAMESPACE, "default"):
        await prepare_namespace(cluster, state, name)
    await cluster.apply(detect_cpu(), field_manager="enginewright-local")
    system = system_objects(
        state, http_port=options.http_port, grpc_port=options.grpc_port, scale_down_seconds=options.scale_down_seconds
    )
    for manifest in system:
        await cluster.apply(manifest, field_manager="enginewright-local")


async def prepare_namespace(cluster: Cluster, state: StateDirectory, name: str) -> None:
    """Namespace with the signing key and the trust that builds and pods of it need."""
    namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    for manifest in (namespace, *namespace_objects(name, state)):
        await cluster.apply(manifest, field_manager="enginewright-local")


async def parts(state: StateDirectory) -> list[Part]:
    """Operator, gateway and autoscaler as they stand."""
    cluster = open_cluster(state)
    try:
        deployments = await cluster.list(DEPLOYMENT, namespace=SYSTEM_NAMESPACE)
        pods = await cluster.list(POD, namespace=SYSTEM_NAMESPACE)
    finally:
        await cluster.close()
    return [_part(item, pods) for item in sorted(deployments, key=lambda item: str(item["metadata"]["name"]))]


def _part(deployment: Object, pods: Any) -> Part:
    name = deployment["metadata"]["name"]
    wanted, ready = deployment["spec"].get("replicas", 1), deployment.get("status", {}).get("readyReplicas", 0)
    own = [pod for pod in pods if pod["metadata"].get("labels", {}).get("app.kubernetes.io/component") == name]
    restarts = sum(
        status.get("restartCount", 0) for pod in own for status in pod.get("status", {}).get("containerStatuses", [])
    )
    return Part(name, f"{ready}/{wanted}", str(restarts), ready >= wanted)
