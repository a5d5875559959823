"""The same scenarios on three clusters: in memory, local (SQLite), and a real API server with its own controllers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.local import LocalCluster
from tests.scenarios.world import Moving, Shifted, World

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(params=["fake", "local", "kube"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The operator on each kind of cluster, with the class `cpu`."""
    async with contextlib.AsyncExitStack() as stack:
        built = await _world(request, tmp_path, stack)
        stack.push_async_callback(built.cluster.close)
        await built.give_class()
        yield built


@pytest.fixture
async def fake_world() -> World:
    """The operator on the cluster in memory: for what needs thousands of steps."""
    clock = Moving()
    built = World(FakeCluster(now=clock), clock=clock)
    await built.give_class()
    return built


async def _world(request: pytest.FixtureRequest, folder: Path, stack: contextlib.AsyncExitStack) -> World:
    clock = Moving()
    if request.param == "fake":
        return World(FakeCluster(now=clock), clock=clock)
    if request.param == "local":
        return World(LocalCluster(folder / "state", now=clock), clock=clock)
    server: Any = request.getfixturevalue("kube_api")
    _install_crds(server)
    namespace = stack.enter_context(server.namespace("scenario"))
    cluster = await KubernetesCluster.from_kubeconfig(server.kubeconfig)
    return World(cluster, clock=Shifted(), real=True, namespace=namespace)


def _install_crds(server: Any) -> None:
    files = [argument for file in sorted(CRDS.glob("*.yaml")) for argument in ("-f", str(file))]
    server.kubectl("apply", "--server-side", "--force-conflicts", *files)
    names = ("optimizedmodels", "enginebuilds", "acceleratorclasses")
    server.kubectl("wait", "--for=condition=Established", *(f"crd/{name}.enginewright.io" for name in names))
