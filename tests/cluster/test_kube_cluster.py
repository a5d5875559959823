"""The test cluster itself: what the other tests build on is true of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest

from tests.kube.harness import GPU_TAINT, Cluster, CommandFailed, OwnCluster, shared_cluster
from tests.kube.scripts import HERE

GROUP = "kube-cluster.test.enginewright.dev"
RUNS_ON_GPU = {"key": GPU_TAINT["key"], "operator": "Exists"}


def widget_crd() -> dict[str, object]:
    """A resource with a rule across fields (CEL) and a scale subresource."""
    counts = {"type": "integer", "minimum": 0}
    spec = {
        "type": "object",
        "properties": {"replicas": counts, "limit": counts},
        "x-kubernetes-validations": [
            {"rule": "self.replicas <= self.limit", "message": "more replicas than the limit"}
        ],
    }
    status = {"type": "object", "properties": {"replicas": counts}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                    },
                }
            ],
        },
    }


def widget(*, replicas: int, limit: int) -> dict[str, object]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": "one"},
        "spec": {"replicas": replicas, "limit": limit},
    }


def workload(kind: str, spec: Mapping[str, object], pod: Mapping[str, object]) -> dict[str, object]:
    labels = {"app": "smoke"}
    api = {"Deployment": "apps/v1", "Job": "batch/v1"}[kind]
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": "smoke"},
        "spec": {**spec, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


@pytest.fixture(scope="module")
def widgets(kube_api: Cluster) -> Cluster:
    kube_api.install_crds([widget_crd()])
    return kube_api


def test_api_answers_as_the_version_it_was_built_from(kube_api: Cluster) -> None:
    version = json.loads(kube_api.kubectl("version", "--output=json").stdout)
    assert version["serverVersion"]["gitVersion"].startswith("v1.")
    assert "v0.0.0" not in version["serverVersion"]["gitVersion"]


def test_rule_across_fields_refuses_an_object(widgets: Cluster, kube_namespace: str) -> None:
    with pytest.raises(CommandFailed, match="more replicas than the limit"):
        widgets.apply(widget(replicas=3, limit=2), namespace=kube_namespace)


def test_scale_subresource_writes_the_custom_resource(widgets: Cluster, kube_namespace: str) -> None:
    widgets.apply(widget(replicas=1, limit=5), namespace=kube_namespace)
    widgets.kubectl("scale", "--replicas=4", "widgets/one", f"--namespace={kube_namespace}")
    spec = widgets.kubectl("get", "widget/one", f"--namespace={kube_namespace}", "--output=jsonpath={.spec}").stdout
    assert json.loads(spec) == {"replicas": 4, "limit": 5}


def test_gpu_pods_go_where_the_gpus_are(kube_api: Cluster, kube_namespace: str) -> None:
    in_namespace = f"--namespace={kube_namespace}"
    pod = {
        "tolerations": [RUNS_ON_GPU],
        "nodeSelector": {"pool": kube_namespace},  # other tests may have fake nodes of their own at this moment
        "containers": [{"name": "c", "image": "any", "resources": {"limits": {"nvidia.com/gpu": 4}}}],
    }
    selector = {"selector": {"matchLabels": {"app": "smoke"}}}
    with kube_api.fake_gpu_nodes(2, gpus=8, labels={"pool": kube_namespace}) as nodes:
        kube_api.apply(workload("Deployment", selector | {"replicas": 5}, pod), namespace=kube_namespace)
        kube_api.kubectl(
            "wait", "--for=jsonpath={.status.readyReplicas}=4", "deployment/smoke", in_namespace, "--timeout=60s"
        )
        pods = json.loads(kube_api.kubectl("get", "pods", in_namespace, "--output=json").stdout)["items"]
        placed = [item["spec"]["nodeName"] for item in pods if "nodeName" in item["spec"]]
        assert sorted(placed) == sorted(nodes * 2)  # two nodes hold four; the fifth has no room
    left = kube_api.kubectl("get", "nodes", "--output=name").stdout
    assert not any(node in left for node in nodes)


def test_job_on_a_fake_node_completes(kube_api: Cluster, kube_namespace: str) -> None:
    pod = {
        "tolerations": [RUNS_ON_GPU],
        "nodeSelector": {"pool": kube_namespace},
        "restartPolicy": "Never",
        "containers": [{"name": "c", "image": "any"}],
    }
    with kube_api.fake_gpu_nodes(1, labels={"pool": kube_namespace}):
        kube_api.apply(workload("Job", {"completions": 3, "parallelism": 3}, pod), namespace=kube_namespace)
        kube_api.kubectl(
            "wait", "--for=condition=Complete", "job/smoke", f"--namespace={kube_namespace}", "--timeout=60s"
        )


def test_pod_runs_and_answers_at_its_service(kube_node: Cluster, kube_namespace: str) -> None:
    in_namespace = f"--namespace={kube_namespace}"
    serve = "echo engine-ready >/tmp/index.html && exec httpd -f -p 8080 -h /tmp"
    pod = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "web",
                "image": kube_node.busybox,
                "command": ["sh", "-c", serve],
                "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}},
            }
        ],
    }
    kube_node.kubectl("label", "namespace", kube_namespace, "pod-security.kubernetes.io/enforce=restricted")
    selector = {"selector": {"matchLabels": {"app": "smoke"}}}
    kube_node.apply(workload("Deployment", selector | {"replicas": 1}, pod), namespace=kube_namespace)
    kube_node.kubectl("expose", "deployment/smoke", "--port=80", "--target-port=8080", in_namespace)
    kube_node.kubectl("wait", "--for=condition=Available", "deployment/smoke", in_namespace, "--timeout=60s")

    by_name = f"http://smoke.{kube_namespace}.svc.cluster.local/index.html"
    from_pod = kube_node.kubectl("exec", "deployment/smoke", in_namespace, "--", "wget", "-q", "-O-", by_name)
    assert from_pod.stdout.strip() == "engine-ready"

    if isinstance(kube_node, OwnCluster):  # this machine routes service addresses into its own cluster
        address = kube_node.kubectl("get", "service/smoke", in_namespace, "--output=jsonpath={.spec.clusterIP}").stdout
        with urllib.request.urlopen(f"http://{address}/index.html", timeout=5) as answer:
            assert answer.read().strip() == b"engine-ready"


def test_node_pulls_an_image_from_the_registry(kube_node: Cluster, kube_namespace: str, tmp_path: Path) -> None:
    if not isinstance(kube_node, OwnCluster):
        pytest.skip("the registry of a given cluster is out of reach")
    in_namespace = f"--namespace={kube_namespace}"
    archive, image = tmp_path / "image.tar", f"{kube_node.registry}/{kube_namespace}:1"
    busybox = shutil.which("busybox")
    command = [
        sys.executable,
        str(HERE / "mkimage.py"),
        "localhost/pushed:1",
        str(archive),
        "--link",
        "/bin/true=busybox",
    ]
    subprocess.run([*command, f"{busybox}:/bin/busybox"], check=True)
    buildah = ("buildah", "--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs")
    kube_node.inside(*buildah, "pull", f"docker-archive:{archive}")
    kube_node.inside(*buildah, "push", "--tls-verify=false", "localhost/pushed:1", f"docker://{image}")
    kube_node.kubectl("run", "pulled", f"--image={image}", "--restart=Never", in_namespace, "--", "/bin/true")
    kube_node.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/pulled", in_namespace, "--timeout=60s")


def test_helm_installs_and_uninstalls(kube_api: Cluster, kube_namespace: str, tmp_path: Path) -> None:
    in_namespace = f"--namespace={kube_namespace}"
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: smoke, version: 1.0.0}")
    template = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-config"}}
    (tmp_path / "templates" / "config.yaml").write_text(json.dumps(template))
    kube_api.helm("install", "one", str(tmp_path), in_namespace, "--wait")
    kube_api.kubectl("get", "configmap/one-config", in_namespace)
    kube_api.helm("uninstall", "one", in_namespace, "--wait")
    assert kube_api.kubectl("get", "configmap/one-config", in_namespace, check=False).returncode != 0


def test_service_account_requests_are_in_the_audit_log(kube_api: Cluster, kube_namespace: str) -> None:
    if not isinstance(kube_api, OwnCluster):
        pytest.skip("the audit log of a given cluster is out of reach")
    account = f"system:serviceaccount:{kube_namespace}:default"
    token = kube_api.kubectl("create", "token", "default", f"--namespace={kube_namespace}").stdout.strip()
    server = kube_api.kubectl("config", "view", "--output=jsonpath={.clusters[0].cluster.server}").stdout
    kube_api.kubectl(
        "get", "secrets", f"--namespace={kube_namespace}", f"--token={token}", f"--server={server}",
        "--kubeconfig=/dev/null", "--insecure-skip-tls-verify", check=False,
    )  # fmt: skip
    asked = [json.loads(line) for line in kube_api.audit_log.read_text().splitlines()]
    assert any(
        entry["user"]["username"] == account
        and entry["verb"] == "list"
        and entry["objectRef"]["resource"] == "secrets"
        and entry["responseStatus"]["code"] == 403
        for entry in asked
    )


def test_second_user_joins_the_running_cluster_and_leaves_it_up(kube_api: Cluster) -> None:
    if not isinstance(kube_api, OwnCluster):
        pytest.skip("only clusters booted here are shared")
    with shared_cluster("control", "kwok") as joined:
        assert joined.kubeconfig == kube_api.kubeconfig
    kube_api.kubectl("get", "--raw", "/readyz")


def test_private_cluster_survives_the_death_of_its_servers(kube_private: OwnCluster) -> None:
    kube_private.kubectl("create", "configmap", "kept")
    kube_private.signal("apiserver", SIGKILL)
    kube_private.signal("etcd", SIGKILL)
    assert kube_private.kubectl("get", "--raw", "/readyz", check=False).returncode != 0
    kube_private.start("control")
    kube_private.kubectl("get", "configmap", "kept")


def test_private_cluster_can_be_frozen(kube_private: OwnCluster) -> None:
    kube_private.signal("apiserver", SIGSTOP)
    frozen = kube_private.kubectl("get", "--raw", "/readyz", "--request-timeout=1s", check=False)
    kube_private.signal("apiserver", SIGCONT)
    assert frozen.returncode != 0
    eventually(lambda: kube_private.kubectl("get", "--raw", "/readyz", check=False).returncode == 0)


def eventually(holds: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)
