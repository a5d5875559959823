"""The chart on a real API server: install where pods must be restricted, upgrade of CRDs, uninstall, return."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.harness import CommandFailed, OwnCluster

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "enginewright"
SNAPSHOTS = ROOT / "tests" / "unit" / "operator" / "__snapshots__"
SYSTEM = "chart-system"
CRD = "crd/optimizedmodels.enginewright.io"
VALUES = (
    "--set=store.uri=s3://artifacts/engines,gateway.allowAnonymous=true,gateway.replicas=2",
    "--set=modelNamespaces={chart-models},networkPolicy.enabled=true",
)

pytestmark = pytest.mark.xdist_group("chart-installs")


@pytest.fixture(scope="module")
def cluster(kube_private: OwnCluster) -> Iterator[OwnCluster]:
    """A cluster of its own, since definitions are everybody's, with a node on which kwok plays the pods."""
    for namespace in (SYSTEM, "chart-models"):
        kube_private.kubectl("create", "namespace", namespace)
        kube_private.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with kube_private.fake_gpu_nodes(1, gpus=0, taints=()):
        yield kube_private


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it was before status.cost was thought of."""
    folder = tmp_path_factory.mktemp("older") / "enginewright"
    shutil.copytree(CHART, folder)
    file = folder / "files" / "crds" / "optimizedmodels.enginewright.io.yaml"
    crd = yaml.safe_load(file.read_text())
    del status_of(crd)["cost"]
    file.write_text(yaml.safe_dump(crd))
    return folder


def status_of(crd: dict[str, Any]) -> dict[str, Any]:
    """Properties of the status that a definition knows."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: dict[str, Any] = schema["properties"]["status"]["properties"]
    return found


def get(cluster: OwnCluster, *what: str) -> dict[str, Any]:
    """An object, or a list."""
    found: dict[str, Any] = json.loads(cluster.kubectl("get", *what, "--output=json").stdout)
    return found


def notes(cluster: OwnCluster) -> str:
    """What Helm tells whoever installed the chart."""
    return cluster.helm("get", "notes", "ew", f"--namespace={SYSTEM}").stdout


def cost(cluster: OwnCluster) -> Any:
    """What remains of a cost that is written into the model's status."""
    patch = json.dumps({"status": {"cost": {"buildAcceleratorSeconds": 2.5, "currency": "USD"}}})
    where = ("--namespace=chart-models", "--subresource=status", "--type=merge", f"--patch={patch}")
    cluster.kubectl("patch", "optimizedmodel", "minilm", *where)
    return get(cluster, "optimizedmodel/minilm", "--namespace=chart-models")["status"].get("cost")


def test_its_pods_are_admitted_where_only_restricted_ones_are(cluster: OwnCluster, older: Path) -> None:
    cluster.helm("install", "ew", str(older), f"--namespace={SYSTEM}", "--wait", "--timeout=60s", *VALUES)
    pods = get(cluster, "pods", f"--namespace={SYSTEM}")["items"]
    components = sorted(pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods)
    assert components == ["autoscaler", "gateway", "gateway", "operator"]
    budgets = {item["metadata"]["name"]: item for item in get(cluster, "pdb", f"--namespace={SYSTEM}")["items"]}
    assert budgets["ew-enginewright-gateway"]["status"]["disruptionsAllowed"] == 1
    policies = {item["metadata"]["namespace"] for item in get(cluster, "networkpolicies", "-A")["items"]}
    assert policies == {SYSTEM, "chart-models"}
    assert "images.builder.digest is empty, so the tag `0.1.0` stands for" in notes(cluster)


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("test_operator_rendering/test_deployment_on_gpus_from_a_bucket", ("template",)),
        ("test_operator_rendering/test_deployment_with_resource_claims", ("template",)),
        ("test_operator_rendering/test_job_on_a_gpu_from_a_bucket", ("template",)),
        # What a LeaderWorkerSet makes its pods of.
        ("test_multi_node/test_the_set_as_it_is_applied", ("leaderWorkerTemplate", "leaderTemplate")),
        ("test_multi_node/test_the_set_as_it_is_applied", ("leaderWorkerTemplate", "workerTemplate")),
    ],
    ids=["server", "server-with-claims", "builder", "leader", "worker"],
)
def test_the_operators_pods_are_admitted_too(cluster: OwnCluster, name: str, template: tuple[str, ...]) -> None:
    pod: dict[str, Any] = yaml.safe_load((SNAPSHOTS / f"{name}.yaml").read_text())["spec"]
    for key in template:
        pod = pod[key]
    pod |= {"apiVersion": "v1", "kind": "Pod"}
    # What else admission looks up is not there, and not the question.
    pod["spec"] |= {"runtimeClassName": None, "priorityClassName": None}
    pod["metadata"]["name"] = "pod"
    dry = ("create", "--dry-run=server", "--namespace=chart-models", "--filename=-")
    cluster.kubectl(*dry, stdin=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        cluster.kubectl(*dry, stdin=json.dumps(pod))


def test_an_upgrade_brings_the_definitions_up_to_date_and_keeps_the_models(cluster: OwnCluster) -> None:
    cluster.kubectl("apply", f"--filename={ROOT}/examples/minilm/model.yaml", "--namespace=chart-models")
    before = get(cluster, "optimizedmodel/minilm", "--namespace=chart-models")
    assert cost(cluster) is None, "the older definition does not know it"
    by_digest = f"--set=images.builder.digest=sha256:{'a' * 64}"
    cluster.helm("upgrade", "ew", str(CHART), f"--namespace={SYSTEM}", "--wait", "--timeout=60s", *VALUES, by_digest)
    assert "digest" not in notes(cluster)
    assert "cost" in status_of(get(cluster, CRD))
    assert cost(cluster) == {"buildAcceleratorSeconds": 2.5, "currency": "USD"}
    after = get(cluster, "optimizedmodel/minilm", "--namespace=chart-models")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]


def test_models_outlive_an_uninstall_and_the_next_install_takes_them_over(cluster: OwnCluster) -> None:
    uid = get(cluster, "optimizedmodel/minilm", "--namespace=chart-models")["metadata"]["uid"]
    key = get(cluster, "secret/enginewright-signing", f"--namespace={SYSTEM}")["data"]
    cluster.helm("uninstall", "ew", f"--namespace={SYSTEM}", "--wait", "--timeout=60s")
    kinds = "deployments,networkpolicies,poddisruptionbudgets,serviceaccounts,roles,rolebindings,configmaps"
    selector = "--selector=app.kubernetes.io/part-of=enginewright"
    assert get(cluster, kinds, f"--namespace={SYSTEM}", selector)["items"] == []
    assert get(cluster, "clusterroles,clusterrolebindings", selector)["items"] == []
    assert get(cluster, "optimizedmodel/minilm", "--namespace=chart-models")["metadata"]["uid"] == uid
    cluster.helm("install", "again", str(CHART), f"--namespace={SYSTEM}", "--take-ownership", *VALUES)
    assert get(cluster, "optimizedmodel/minilm", "--namespace=chart-models")["metadata"]["uid"] == uid
    assert get(cluster, "secret/enginewright-signing", f"--namespace={SYSTEM}")["data"] == key
