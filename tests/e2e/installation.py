"""One installation of the platform on the test cluster, and what the tests ask it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc

from tests.kube.harness import Cluster, OwnCluster

ROOT = Path(__file__).parents[2]
MODEL_FILE = ROOT / "examples" / "minilm" / "model.yaml"
MODEL = "minilm"
STORE_GIB = 10
Object = dict[str, Any]


@dataclass
class Steps:
    """How long each step took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure one step."""
        begun = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begun


@dataclass(frozen=True)
class Platform:
    """One installation and the namespace of its models."""

    cluster: OwnCluster
    release: str
    namespace: str
    """Where operator, gateway and autoscaler run."""
    models: str
    """Where the models are."""
    values: tuple[str, ...]
    steps: Steps
    store: Path
    """The folder of its artifacts, on this machine."""

    def get(self, *what: str) -> Object:
        """One object of the models' namespace, or a list of them."""
        printed = self.cluster.kubectl("get", *what, f"--namespace={self.models}", "--output=json").stdout
        found: Object = json.loads(printed)
        return found

    def items(self, plural: str, **labels: str) -> list[Object]:
        """Objects of the models' namespace by labels, which are named by their last part."""
        prefixes = {"component": "app.kubernetes.io/", "model": "enginewright.io/"}
        selector = ",".join(f"{prefixes[name]}{name}={value}" for name, value in labels.items())
        found: list[Object] = self.get(plural, f"--selector={selector}")["items"]
        return found

    def address_of(self, service: str, namespace: str) -> str:
        """ClusterIP, which this machine has a route to."""
        option = f"--namespace={namespace}"
        return self.cluster.kubectl("get", "service", service, option, "--output=jsonpath={.spec.clusterIP}").stdout

    def helm(self, command: str) -> None:
        """`install` or `upgrade` the release with its values."""
        chart = str(ROOT / "helm" / "enginewright")
        ownership = ["--take-ownership"] if command == "install" else []
        self.cluster.helm(
            command, self.release, chart, f"--namespace={self.namespace}", "--wait", "--timeout=240s",
            *ownership, *self.values,
        )  # fmt: skip


def infer(url: str, sentence: str) -> list[float]:
    """One embedding by KServe v2 over HTTP; `url` is a model's, up to its name."""
    tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [sentence]}
    answer = httpx.post(f"{url}/infer", json={"inputs": [tensor]}, timeout=30)
    assert answer.status_code == 200, answer.text
    outputs = {item["name"]: item for item in answer.json()["outputs"]}
    found: list[float] = outputs["embedding"]["data"]
    return found


def infer_by_grpc(address: str, model: str, sentence: str) -> list[float]:
    """The same by KServe v2 over gRPC; `address` is host:port."""
    tensor = tritonclient.grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[sentence.encode()]], dtype=object))
    with tritonclient.grpc.InferenceServerClient(address) as client:
        found: list[float] = client.infer(model, [tensor], client_timeout=30).as_numpy("embedding")[0].tolist()
    return found


def leftovers(platform: Platform) -> list[str]:
    """Names of all that carries our labels in the models' namespace."""
    kinds = "enginebuilds,jobs,deployments,replicasets,services,pods,configmaps,endpointslices,poddisruptionbudgets"
    found = platform.get(kinds, "--selector=app.kubernetes.io/managed-by=enginewright")["items"]
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found]


def eventually(check: Callable[[], object], within_seconds: float, what: str) -> None:
    """Wait until `check` is true."""
    deadline = time.monotonic() + within_seconds
    while not check():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_seconds:.0f} s: {what}")
        time.sleep(0.5)


def condition(model: Object, kind: str) -> Object:
    """One condition of a model."""
    return next(item for item in model["status"]["conditions"] if item["type"] == kind)


def restricted_namespace(cluster: Cluster, name: str, store: Path) -> None:
    """A namespace that refuses pods which are not restricted, with a claim on the folder of artifacts."""
    capacity = {"storage": f"{STORE_GIB}Gi"}
    modes = ["ReadWriteMany"]
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{name}-store"},
            "spec": {
                "capacity": capacity,
                "accessModes": modes,
                "storageClassName": "",
                "claimRef": {"namespace": name, "name": "store"},
                "hostPath": {"path": str(store), "type": "Directory"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "store"},
            "spec": {
                "accessModes": modes,
                "storageClassName": "",
                "volumeName": f"{name}-store",
                "resources": {"requests": capacity},
            },
        },
        namespace=name,
    )


def tell(platform: Platform) -> None:
    """What a person would look at first."""
    kubectl = platform.cluster.kubectl
    for namespace in (platform.namespace, platform.models):
        where = f"--namespace={namespace}"
        for command in (
            ("get", "optimizedmodels,enginebuilds,jobs,deployments,pods", where, "--output=wide"),
            ("get", "events", where, "--sort-by=.lastTimestamp"),
            ("describe", "optimizedmodels", where),
            ("logs", where, "--selector=app.kubernetes.io/part-of=enginewright", "--all-containers", "--tail=40"),
        ):
            shown = kubectl(*command, check=False)
            print(f"$ kubectl {' '.join(command)}\n{shown.stdout}{shown.stderr}")  # noqa: T201 - pytest shows it
