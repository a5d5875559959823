"""An API server of this tier's own, whose death nobody else notices, with our kinds served."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enginewright_api.crd import definitions
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import Cluster
from tests.faults.at_work import Opened
from tests.kube.harness import OwnCluster


@pytest.fixture(scope="module")
def server(kube_private: OwnCluster) -> OwnCluster:
    """Served to one module."""
    kube_private.install_crds(definitions())
    return kube_private


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """Opens clusters from kubeconfigs, and closes them."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_(kubeconfig: Path) -> Cluster:
            cluster: Cluster = await KubernetesCluster.from_kubeconfig(kubeconfig)
            stack.push_async_callback(cluster.close)
            return cluster

        yield open_
