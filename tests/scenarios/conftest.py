"""The same scenarios on three clusters: in memory, local (SQLite), and a real API server with its own controllers."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.local import LocalCluster
from enginewright_cluster.port import NAMESPACE, Ref
from tests.scenarios.world import Moving, Shifted, World

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(params=["fake", "local", "kube"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The operator on each kind of cluster, with the class `cpu`."""
    async with contextlib.AsyncExitStack() as stack:
        built = await _world(request, tmp_path, stack)
        await built.give_class()
        yield built
    await built.cluster.close()


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
    cluster = await KubernetesCluster.from_kubeconfig(request.getfixturevalue("kube_with_crds"))
    namespace = Ref(NAMESPACE, f"scenario-{secrets.token_hex(4)}")
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}})
    stack.push_async_callback(cluster.delete, namespace)
    return World(cluster, clock=Shifted(), real=True, namespace=namespace.name)


@pytest.fixture(scope="session")
def kube_with_crds(kube_crds: Any) -> Path:
    """Kubeconfig of an API server that knows our resources."""
    return Path(kube_crds.kubeconfig)
