"""`enginewright render --platform` says what the operator of that platform then creates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.kube.harness import OwnCluster

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "minilm" / "model.yaml"
DIGEST = f"sha256:{'5e' * 32}"
SECONDS = 60.0


def test_what_is_rendered_is_what_the_operator_creates(
    kube_crds: OwnCluster, helm: Path, kube_namespace: str, tmp_path: Path
) -> None:
    platform = _platform(helm, kube_namespace, tmp_path)
    command = [f"{sys.prefix}/bin/enginewright", "render", f"--filename={MODEL}", f"--platform={platform}"]
    # Settings of the one who asks are not the operator's.
    asking = os.environ | {"ENGINEWRIGHT_STORE": "s3://elsewhere/else", "ENGINEWRIGHT_HOME": str(tmp_path)}
    command.append(f"--namespace={kube_namespace}")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=asking)
    rendered = {item["kind"]: item for item in yaml.safe_load_all(done.stdout)}
    assert rendered.keys() == {"EngineBuild", "ConfigMap", "Job"}

    documents = [item for item in yaml.safe_load_all(platform.read_text()) if item]
    classes = [item for item in documents if item["kind"] == "AcceleratorClass"]
    (deployment,) = (
        item for item in documents if item["kind"] == "Deployment" and item["metadata"]["name"].endswith("-operator")
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    here = [f"--kubeconfig={kube_crds.kubeconfig}", "--lease-namespace=", "--port=0"]
    with kube_crds.fake_gpu_nodes(1, gpus=0, taints=()):
        kube_crds.apply(*classes)
        program = subprocess.Popen(
            [f"{sys.prefix}/bin/{container['command'][0]}", *container["args"], *here], stderr=subprocess.DEVNULL
        )
        try:
            kube_crds.kubectl("apply", f"--filename={MODEL}", f"--namespace={kube_namespace}")
            (job,) = _wait(lambda: _items(kube_crds, "jobs", kube_namespace))
        finally:
            program.terminate()
            program.wait(30)
            kube_crds.kubectl("delete", "acceleratorclasses", *(item["metadata"]["name"] for item in classes))
    (build,) = _items(kube_crds, "enginebuilds", kube_namespace)
    assert build["spec"]["key"] == rendered["EngineBuild"]["spec"]["key"]
    assert build["spec"] == rendered["EngineBuild"]["spec"]
    assert build["spec"]["toolchain"]["digest"] == DIGEST
    assert job["metadata"]["name"] == rendered["Job"]["metadata"]["name"]
    created, told = (item["spec"]["template"]["spec"]["containers"][0] for item in (job, rendered["Job"]))
    assert {field: created[field] for field in ("image", "args", "env", "resources")} == {
        field: told[field] for field in ("image", "args", "env", "resources")
    }
    assert created["image"] == f"reg.example/team/enginewright-builder@{DIGEST}"


def _platform(helm: Path, namespace: str, folder: Path) -> Path:
    """The chart with values of a cluster; the store is a folder so that the operator can ask it here."""
    values = (
        f"--set=store.uri=file://{folder}/store,store.hostPath=true,gateway.allowAnonymous=true",
        f"--set=images.registry=reg.example/team,images.builder.digest={DIGEST},watchNamespace={namespace}",
        "--set=operator.buildMemoryGiB=6,crds.enabled=false",
        '--set-json=operator.extraEnv=[{"name":"ENGINEWRIGHT_BUILD_MEMORY_MOST_GIB","value":"12"}]',
    )
    command = [str(helm), "template", "ew", str(ROOT / "helm/enginewright"), "--kube-version=1.35.0", *values]
    file = folder / "platform.yaml"
    file.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (folder / "store").mkdir()
    return file


def _items(cluster: OwnCluster, kind: str, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        cluster.kubectl("get", kind, f"--namespace={namespace}", "--output=json").stdout
    )["items"]
    return found


def _wait(found: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + SECONDS
    while not (items := found()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return items
