"""An air gap: the commands of docs/airgap.md, from one installation to another that reaches only a registry of its own.

The cluster's network namespace has no route to anywhere. Registry and store of the second installation begin empty;
what its pods run and load can only have come in the bundle.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e.installation import MODEL, ROOT, Object, Platform, infer, restricted_namespace, tell
from tests.kube.harness import CommandFailed, OwnCluster
from tests.required import cannot_run

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]

PAGE = ROOT / "docs" / "airgap.md"
REGISTRY = "127.0.0.1:5001"
RELEASE = "enginewright"


@dataclass(frozen=True)
class Page:
    """Runs what a section of the page says in a folder, inside the cluster's network."""

    cluster: OwnCluster
    folder: Path

    @property
    def registry_log(self) -> Path:
        """What the new registry was asked for."""
        return self.folder / "registry.log"

    def run(self, section: str, **variables: str) -> str:
        """Every shell block of a section; what they printed."""
        text = re.split(rf"^## {section}$", PAGE.read_text(), flags=re.MULTILINE)[1].partition("\n## ")[0]
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        assert blocks, section
        path = f"{self.folder}/bin:{self.cluster.programs}:{sys.prefix}/bin:{os.environ['PATH']}"
        settings = {"PATH": path, "HOME": str(self.folder), **variables}
        environment = ("env", f"--chdir={self.folder}", *(f"{name}={value}" for name, value in settings.items()))
        return self.cluster.inside(*environment, "bash", "-euo", "pipefail", "-c", "\n".join(blocks)).stdout


@pytest.fixture(scope="module")
def page(node: OwnCluster) -> Iterator[Page]:
    """With the settings that a registry without TLS needs."""
    if shutil.which("skopeo") is None:
        cannot_run("no skopeo: run make system-deps")
    folder = Path(tempfile.mkdtemp(prefix="enginewright-airgap-"))
    (folder / "helm").symlink_to(ROOT / "helm")
    (folder / "examples").symlink_to(ROOT / "examples")
    config = folder / ".config" / "containers"
    config.mkdir(parents=True)
    (config / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    insecure = "".join(f'[[registry]]\nlocation = "{name}"\ninsecure = true\n' for name in (node.registry, REGISTRY))
    (config / "registries.conf").write_text(insecure)
    # The definitions belong to the first installation still.
    helm = f'#!/bin/sh\n[ "$1" != install ] || set -- "$@" --take-ownership\nexec {node.programs}/helm "$@"\n'
    (folder / "bin").mkdir()
    (folder / "bin" / "helm").write_text(helm)
    (folder / "bin" / "helm").chmod(0o755)
    yield Page(node, folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def registry(node: OwnCluster, page: Page) -> Iterator[None]:
    """An empty registry that the node may pull from."""
    log, settings = page.registry_log, page.folder / "registry.yaml"
    storage = {"filesystem": {"rootdirectory": str(page.folder / "registry")}}
    settings.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": REGISTRY}}))
    hosts = node.folder / "cd" / "certs.d" / REGISTRY
    hosts.mkdir()
    (hosts / "hosts.toml").write_text(f'server = "http://{REGISTRY}"\n')
    command = ["nsenter", f"--net=/run/netns/ewkube{node.number}", "docker-registry", "serve", str(settings)]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as server:
        try:
            deadline = time.monotonic() + 20
            while node.inside("curl", "--silent", "--fail", f"http://{REGISTRY}/v2/", check=False).returncode != 0:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            server.terminate()
            shutil.rmtree(hosts)


@pytest.fixture(scope="module")
def other(platform: Platform, page: Page) -> Iterator[Platform]:
    """Names and namespaces of the second installation, whose store is empty."""
    node, suffix = platform.cluster, secrets.token_hex(3)
    system, models = f"airgap-system-{suffix}", f"airgap-models-{suffix}"
    store = page.folder / "store"
    store.mkdir()
    for folder in (page.folder, store):
        folder.chmod(0o755)
    other = Platform(node, RELEASE, system, models, (), platform.steps, store)
    try:
        for namespace in (system, models):
            restricted_namespace(node, namespace, store)
        yield other
    except CommandFailed:
        tell(other)
        raise
    finally:
        node.kubectl("delete", "optimizedmodels", "--all", f"--namespace={models}", "--timeout=60s", check=False)
        node.helm("uninstall", RELEASE, f"--namespace={system}", "--wait", check=False)
        node.kubectl("delete", "namespace", models, system, "--timeout=90s", check=False)
        node.kubectl("delete", "persistentvolume", f"{system}-store", f"{models}-store", check=False)


@pytest.mark.usefixtures("registry")
def test_what_came_in_the_bundle_is_enough(
    platform: Platform, model: Object, images: dict[str, str], page: Page, other: Platform
) -> None:
    node = platform.cluster
    assert node.inside("ip", "route", "show", "default").stdout == "", "nothing here reaches the outside"
    with platform.steps.timed("air gap: packed"):
        page.run(
            "Pack", CONTROL=images["control"], SERVING=images["serving"], STORE=platform.store.as_uri(),
            SYSTEM=platform.namespace,
        )  # fmt: skip
    with platform.steps.timed("air gap: unpacked into registry and store"):
        printed = page.run("Unpack", REGISTRY=REGISTRY, STORE=other.store.as_uri())
    for name in ("control", "serving"):
        assert f"image enginewright-{name}:0.1.0 {images[name].partition('@')[2]}" in printed.splitlines()
    pulled, asked_before = Pulls(node), (node.folder / "log" / "registry.log").read_text()
    _write_values(page, other)
    try:
        with platform.steps.timed("air gap: helm install, model Ready"):
            page.run(
                "Install", REGISTRY=REGISTRY, SYSTEM=other.namespace, MODELS=other.models,
                BUILDER=images["builder"].partition("@")[2],
            )  # fmt: skip
    except CommandFailed:
        tell(other)
        raise
    _assert_the_bundles_engine_serves(other, model)
    wanted = {f"{REGISTRY}/enginewright-{name}@{images[name].partition('@')[2]}" for name in ("control", "serving")}
    assert pulled.now() == wanted, "each image came by digest from the registry that was filled from the bundle"
    for reference in wanted:
        repository, _, digest = reference.removeprefix(f"{REGISTRY}/").partition("@")
        assert f"/v2/{repository}/manifests/{digest}" in page.registry_log.read_text()
    assert (node.folder / "log" / "registry.log").read_text() == asked_before, "and nothing from the other registry"


def _write_values(page: Page, other: Platform) -> None:
    values = {
        "modelNamespaces": [other.models],
        "watchNamespace": other.models,
        "store": {"uri": "file:///store", "volumeClaim": "store"},
        "gateway": {"allowAnonymous": True},
    }
    (page.folder / "values.yaml").write_text(yaml.safe_dump(values))


def _assert_the_bundles_engine_serves(other: Platform, origin: Object) -> None:
    active = other.get("optimizedmodel", MODEL)["status"]["active"]
    assert active["artifactDigest"] == origin["status"]["active"]["artifactDigest"]
    builds = other.get("enginebuilds")["items"]
    reasons = {item["reason"] for build in builds for item in build["status"]["conditions"] if item["type"] == "Ready"}
    assert reasons == {"Reused"}
    assert other.get("jobs")["items"] == [], "nothing was built"
    trusted = other.get("configmap", "enginewright-trust")["data"]["public.pem"]
    assert trusted.count("BEGIN PUBLIC KEY") == 2, "the key of this cluster, and of the one that built"
    address = other.address_of(MODEL, other.models)
    assert len(infer(f"http://{address}:8000/v2/models/{MODEL}", "A cat sleeps on the sofa.")) == 384


class Pulls:
    """Images that the node was told to pull since this was made, as its containerd tells."""

    def __init__(self, node: OwnCluster) -> None:
        self._log = node.folder / "log" / "containerd.log"
        self._begin = self._log.stat().st_size

    def now(self) -> set[str]:
        """References."""
        with self._log.open("rb") as log:
            log.seek(self._begin)
            return set(re.findall(r'PullImage \\"([^"\\]+)\\"', log.read().decode()))
