"""pytest fixtures: a real Kubernetes, booted once and only when a test asks for it.

    helm           its program alone
    kube_api       control plane and kwok: anything that is about the API (4 s to boot)
    kube_node      the same cluster with a real node, DNS and a registry (4 s more)
    kube_crds      kube_api with Enginewright's CustomResourceDefinitions
    kube_namespace a fresh namespace for one test
    kube_private   a control plane of the test module's own, whose servers may be killed

`ENGINEWRIGHT_TEST_KUBECONFIG` names a cluster to use instead (kubectl and helm on PATH; kwok in it for fake nodes).
Where no cluster can run the tests are skipped with the reason, or fail with it (`tests/required.py`).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginewright_api.crd import definitions
from tests.kube import scripts
from tests.kube.harness import Cluster, OwnCluster, private_cluster, shared_cluster
from tests.required import cannot_run

FIXTURES = {"kube_api", "kube_crds", "kube_node", "kube_namespace", "kube_private"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the cluster's programs before the first test: minutes, once, which no test's time limit should pay for."""
    wanted = any(FIXTURES.intersection(getattr(item, "fixturenames", ())) for item in session.items)
    if not wanted or session.config.option.collectonly or _given_kubeconfig():
        return
    with _uncaptured(session.config), contextlib.suppress(scripts.Unavailable, scripts.ScriptFailed):
        scripts.build()  # a failure is told again, and to the right tests, by the fixture


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm of the test cluster, which needs no cluster to render."""
    try:
        return scripts.build() / "helm"
    except scripts.Unavailable as reason:
        cannot_run(f"no helm: {reason}")


@pytest.fixture(scope="session")
def kube_api(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A control plane with kwok, shared by all tests of the session."""
    given = _given_kubeconfig()
    if given:
        with tempfile.TemporaryDirectory(prefix="enginewright-kube-") as scratch:
            yield Cluster(kubeconfig=given, scratch=Path(scratch))
        return
    with contextlib.ExitStack() as stack:
        cluster = shared_cluster("control", "kwok", keep_logs=lambda: request.session.testsfailed > 0)
        with _uncaptured(request.config):
            try:
                booted = stack.enter_context(cluster)
            except scripts.Unavailable as reason:
                cannot_run(f"no Kubernetes: {reason}")
        yield booted


@pytest.fixture(scope="session")
def kube_node(request: pytest.FixtureRequest, kube_api: Cluster) -> Cluster:
    """The cluster of `kube_api` with a real node that runs containers, the cluster's DNS and a registry."""
    if isinstance(kube_api, OwnCluster):
        with _uncaptured(request.config):
            try:
                kube_api.start("node", "registry")
            except scripts.Unavailable as reason:
                cannot_run(f"no Kubernetes: {reason}")
    return kube_api


@pytest.fixture(scope="session")
def kube_crds(kube_api: Cluster) -> Cluster:
    """The shared cluster with Enginewright's resources served."""
    kube_api.install_crds(definitions())
    return kube_api


@pytest.fixture
def kube_namespace(kube_api: Cluster) -> Iterator[str]:
    """A fresh namespace of the shared cluster."""
    with kube_api.namespace() as name:
        yield name


@pytest.fixture(scope="module")
def kube_private(request: pytest.FixtureRequest) -> Iterator[OwnCluster]:
    """A control plane with kwok that only this test module uses."""
    with contextlib.ExitStack() as stack:
        cluster = private_cluster("control", "kwok", keep_logs=lambda: request.session.testsfailed > 0)
        with _uncaptured(request.config):
            try:
                booted = stack.enter_context(cluster)
            except scripts.Unavailable as reason:
                cannot_run(f"no Kubernetes: {reason}")
        yield booted


def _given_kubeconfig() -> Path | None:
    given = os.environ.get("ENGINEWRIGHT_TEST_KUBECONFIG")
    return Path(given) if given else None


def _uncaptured(config: pytest.Config) -> contextlib.AbstractContextManager[None]:
    """Let the scripts' progress reach the terminal: a silent minute looks like a hang."""
    manager = config.pluginmanager.getplugin("capturemanager")
    return manager.global_and_fixture_disabled() if manager else contextlib.nullcontext()
