"""The platform on a real node: images built and pushed, the chart installed, one model applied. Each step is timed."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.installation import MODEL, MODEL_FILE, ROOT, Object, Platform, Steps, restricted_namespace, tell
from tests.kube.harness import Cluster, CommandFailed, OwnCluster
from tests.required import cannot_run

CANNOT = 3
"""Exit status of the scripts in images/ when the machine lacks something."""


@pytest.fixture(scope="session")
def steps(request: pytest.FixtureRequest) -> Iterator[Steps]:
    """Told at the end, passed or failed."""
    taken = Steps()
    yield taken
    manager = request.config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled():
        print("\n" + "\n".join(f"  {name:<44}{seconds:7.1f} s" for name, seconds in taken.seconds.items()))  # noqa: T201


@pytest.fixture(scope="session")
def node(kube_node: Cluster) -> OwnCluster:
    """A cluster with a registry and a node of our own."""
    if not isinstance(kube_node, OwnCluster):
        pytest.skip("the end-to-end tests push images to the registry of the cluster that tests/kube boots")
    return kube_node


@pytest.fixture(scope="session")
def images(node: OwnCluster, steps: Steps) -> dict[str, str]:
    """Image name to reference by digest in the cluster's registry."""
    with steps.timed("images built"):
        _script(str(ROOT / "images/build.sh"))
    with steps.timed("images pushed"):
        storage = ("--storage", str(node.folder / "registry"))
        enter = ("nsenter", f"--net=/run/netns/ewkube{node.number}")
        printed = _script(*enter, str(ROOT / "images/push.sh"), node.registry, *storage)
    references = printed.split()
    return {
        name: next(item for item in references if f"-{name}@" in item) for name in ("control", "serving", "builder")
    }


@pytest.fixture(scope="session")
def platform(node: OwnCluster, images: dict[str, str], steps: Steps) -> Iterator[Platform]:
    """The chart, installed in a namespace of its own for the models of another; both hold pods to `restricted`."""
    suffix = secrets.token_hex(3)
    system, models = f"e2e-system-{suffix}", f"e2e-models-{suffix}"
    # The kubelet makes missing folders for root alone; the builder, the operator and admission are not root.
    store = Path(tempfile.mkdtemp(prefix="enginewright-e2e-"))
    store.chmod(0o777)
    values = [
        f"--set=images.{name}.repository={reference.partition('@')[0]},images.{name}.digest={reference.partition('@')[2]}"
        for name, reference in images.items()
    ]
    values += [
        f"--set=modelNamespaces={{{models}}},watchNamespace={models}",
        "--set=store.uri=file:///store,store.volumeClaim=store",
        "--set=gateway.allowAnonymous=true",
        # The node has two cores, and is not ours alone.
        "--set=operator.buildCpu=500m,operator.buildMemoryGiB=6,operator.drainSeconds=2",
        # Its schedule is not for a test to wait for, and it must not come by itself meanwhile.
        "--set=gc.enabled=true,gc.schedule=0 0 1 1 *,gc.keep=0,gc.graceHours=0",
    ]
    platform = Platform(node, f"ew-{suffix}", system, models, tuple(values), steps, store)
    try:
        for namespace in (system, models):
            restricted_namespace(node, namespace, store)
        with steps.timed("helm install, programs ready"):
            platform.helm("install")
        yield platform
    except CommandFailed:
        tell(platform)
        raise
    finally:
        node.kubectl("delete", "optimizedmodels", "--all", f"--namespace={models}", "--timeout=60s", check=False)
        node.helm("uninstall", platform.release, f"--namespace={system}", "--wait", check=False)
        for namespace in (models, system):
            node.kubectl("delete", "namespace", namespace, "--timeout=90s", check=False)
        node.kubectl(
            "delete", "persistentvolume", f"{system}-store", f"{models}-store", "--ignore-not-found", check=False
        )
        shutil.rmtree(store, ignore_errors=True)


@pytest.fixture(scope="session")
def model(platform: Platform) -> Object:
    """examples/minilm/model.yaml, applied and Ready."""
    with platform.steps.timed("kubectl apply → Ready (image pulls, build, rollout)"):
        platform.cluster.kubectl("apply", f"--filename={MODEL_FILE}", f"--namespace={platform.models}")
        try:
            platform.cluster.kubectl(
                "wait", "--for=condition=Ready", f"optimizedmodel/{MODEL}", f"--namespace={platform.models}",
                "--timeout=540s", timeout=560,
            )  # fmt: skip
        except CommandFailed:
            tell(platform)
            raise
    platform.steps.seconds.update(_stages(platform))
    return platform.get("optimizedmodel", MODEL)


def _stages(platform: Platform) -> dict[str, float]:
    """What the way to Ready consisted of, by the clocks of the kubelet."""
    builder = min(platform.items("pods", component="builder"), key=lambda pod: pod["status"]["startTime"])
    server = platform.items("pods", component="server", model=MODEL)[0]
    ended = builder["status"]["containerStatuses"][0]["state"]["terminated"]
    ready = next(item for item in server["status"]["conditions"] if item["type"] == "Ready")
    applied = platform.get("optimizedmodel", MODEL)["metadata"]["creationTimestamp"]
    return {
        "  of it: builder started (its image pulled)": _between(applied, ended["startedAt"]),
        "  of it: first build": _between(ended["startedAt"], ended["finishedAt"]),
        "  of it: server pod until ready": _between(server["status"]["startTime"], ready["lastTransitionTime"]),
    }


def _between(begun: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()


def _script(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        cannot_run(f"no images: {done.stderr.strip().splitlines()[-1]}")
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-4000:]}", pytrace=False)
    return done.stdout
