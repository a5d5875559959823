"""From examples/minilm/model.yaml to answers, on a real node, with real images, a real chart and real RBAC.

The tests follow one model through its life, in order; each stands on what those before it left.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.recipe import Toolchain
from enginewright_operator.core.render.pods import CONTAINER_SECURITY, Volumes, devices, pod_spec, resources
from enginewright_operator.core.settings import OperatorSettings, StoreAccess
from tests.e2e.installation import (
    MODEL,
    MODEL_FILE,
    Object,
    Platform,
    condition,
    eventually,
    infer,
    infer_by_grpc,
    leftovers,
)
from tests.kube.rights import granted

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("e2e")]

SENTENCES = ["A cat sleeps on the sofa.", "The kitten naps on the couch.", "Quarterly revenue rose by five percent."]


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Cosine of two vectors."""
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / (math.hypot(*left) * math.hypot(*right))


def test_a_builder_pod_on_the_real_node_made_the_engine(platform: Platform, model: Object) -> None:
    builds = platform.get("enginebuilds")["items"]
    active = next(item for item in builds if item["metadata"]["name"] == model["status"]["active"]["engineBuild"])
    assert active["status"]["phase"] == "Succeeded"
    assert active["status"]["artifact"]["digest"].removeprefix("sha256:") == model["status"]["active"][
        "artifactDigest"
    ].removeprefix("sha256:")
    assert model["status"]["quality"]["dropUpperBound"] <= 0.01
    pods = platform.items("pods", component="builder")
    assert pods
    for pod in pods:
        assert pod["spec"]["nodeName"] == "node-0"
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_the_serving_pod_admitted_what_was_signed(platform: Platform, model: Object) -> None:
    (pod,) = platform.items("pods", component="server", model=MODEL)
    (admission,) = pod["status"]["initContainerStatuses"]
    assert admission["state"]["terminated"]["exitCode"] == 0
    assert pod["status"]["containerStatuses"][0]["ready"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False
    mounts = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert "store" not in mounts, "only admission needs the store"


def test_the_service_answers_kserve_v2(platform: Platform, model: Object) -> None:
    url = f"http://{platform.address_of(MODEL, platform.models)}:8000/v2/models/{MODEL}"
    with platform.steps.timed("first answer through the Service"):
        vectors = [infer(url, sentence) for sentence in SENTENCES]
    assert {len(vector) for vector in vectors} == {384}
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.2


def test_the_gateway_answers_the_official_client(platform: Platform, model: Object) -> None:
    client, service = _openai(platform), f"http://{platform.address_of(MODEL, platform.models)}:8000/v2/models/{MODEL}"
    assert MODEL in {item.id for item in client.models.list()}
    with platform.steps.timed("first answer through the gateway"):
        answer = client.embeddings.create(model=MODEL, input=SENTENCES, encoding_format="float")
    for sentence, item in zip(SENTENCES, answer.data, strict=True):
        assert cosine(item.embedding, infer(service, sentence)) > 0.999
    assert answer.usage.prompt_tokens > len(SENTENCES)


def test_both_answer_kserve_v2_by_grpc(platform: Platform, model: Object) -> None:
    service = platform.address_of(MODEL, platform.models)
    gateway = platform.address_of(f"{platform.release}-enginewright-gateway", platform.namespace)
    by_http = infer(f"http://{service}:8000/v2/models/{MODEL}", SENTENCES[0])
    for address, name in ((service, MODEL), (gateway, MODEL), (gateway, f"{platform.models}/{MODEL}")):
        assert cosine(infer_by_grpc(f"{address}:8001", name, SENTENCES[0]), by_http) > 0.999


def test_helm_test_finds_the_gateway_in_order(platform: Platform, model: Object) -> None:
    with platform.steps.timed("helm test"):
        platform.cluster.helm("test", platform.release, f"--namespace={platform.namespace}", "--timeout=120s")


def test_the_autoscaler_sees_the_traffic(platform: Platform, model: Object) -> None:
    def decided() -> bool:
        _openai(platform).embeddings.create(model=MODEL, input=SENTENCES)
        found = condition(platform.get("optimizedmodel", MODEL), "Autoscaling")
        return bool(found["status"] == "True")

    eventually(decided, 60, "condition Autoscaling is True")


def test_an_upgrade_changes_nothing_that_serves(platform: Platform, model: Object) -> None:
    before = platform.get("optimizedmodel", MODEL)["status"]["active"]
    trust = platform.get("configmap", "enginewright-trust")["data"]
    with platform.steps.timed("helm upgrade"):
        platform.helm("upgrade")
    assert platform.get("configmap", "enginewright-trust")["data"] == trust, "the key must outlive an upgrade"
    assert platform.get("optimizedmodel", MODEL)["status"]["active"] == before
    manifest = platform.cluster.helm("get", "manifest", platform.release, f"--namespace={platform.namespace}").stdout
    kinds = {item["kind"] for item in yaml.safe_load_all(manifest) if item}
    assert "AcceleratorClass" in kinds, "a first install's hook must have become part of the release"


def test_the_collector_takes_what_nothing_uses_and_leaves_what_serves(platform: Platform, model: Object) -> None:
    """The replica that the next test adds loads what is left."""
    key = model["status"]["active"]["engineBuild"].removeprefix("eb-")
    (served,) = (platform.store / "artifacts").glob(f"{key}*")
    before = _files(served)
    unused = served.with_name("0" * 64)
    _copied(served, unused)
    where = f"--namespace={platform.namespace}"
    cron_job = f"{platform.release}-enginewright-gc"
    with platform.steps.timed("garbage collection, from Job to report"):
        platform.cluster.kubectl("create", "job", "collect", f"--from=cronjob/{cron_job}", where)
        platform.cluster.kubectl("wait", "--for=condition=Complete", "job/collect", where, "--timeout=90s")
    report = json.loads(platform.cluster.kubectl("logs", "job/collect", where).stdout)
    found = {row["key"]: (row["verdict"], row["reason"]) for row in report["holdings"] if row["kind"] == "Artifact"}
    assert found[served.name] == ("Keep", "in use")
    assert found[unused.name] == ("Remove", "no object uses it")
    assert report["removed"] == [unused.name]
    assert not unused.exists()
    assert _files(served) == before
    shown = platform.cluster.kubectl("get", "pods", where, "--selector=job-name=collect", "--output=json").stdout
    (pod,) = json.loads(shown)["items"]
    assert (pod["spec"]["serviceAccountName"], pod["spec"]["nodeName"]) == (cron_job, "node-0")


def test_scaling_by_hand_adds_a_second_replica(platform: Platform, model: Object) -> None:
    where = f"--namespace={platform.models}"
    scaling = {"mode": "Manual", "minReplicas": None, "maxReplicas": None, "objectives": None}
    manual = json.dumps({"spec": {"scaling": scaling}})
    platform.cluster.kubectl("patch", "optimizedmodel", MODEL, where, "--type=merge", f"--patch={manual}")
    with platform.steps.timed("kubectl scale 1 → 2, both ready"):
        platform.cluster.kubectl("scale", f"optimizedmodel/{MODEL}", "--replicas=2", where)
        eventually(lambda: len(set(_ready_addresses(platform))) == 2, 90, "two ready endpoints")
    eventually(lambda: platform.get("optimizedmodel", MODEL)["status"]["replicas"] == 2, 20, "status.replicas is 2")
    assert len(platform.get("jobs")["items"]) == len(platform.items("jobs", component="builder")), "no other jobs"
    assert any(name.startswith("PodDisruptionBudget/") for name in leftovers(platform)), "nothing would be seen to go"
    for address in set(_ready_addresses(platform)):
        assert len(infer(f"http://{address}:8000/v2/models/{MODEL}", SENTENCES[0])) == 384


@pytest.fixture
def gpu_nodes(platform: Platform) -> Iterator[list[str]]:
    """Two H100 nodes of eight GPUs, as the scheduler sees them."""
    with platform.cluster.fake_gpu_nodes(2) as names:
        yield names


def test_pods_for_a_gpu_class_land_on_its_nodes(platform: Platform, gpu_nodes: list[str]) -> None:
    manifest = json.loads(
        platform.cluster.kubectl("get", "acceleratorclass", "nvidia-h100-80g", "--output=json").stdout
    )
    accelerator = AcceleratorClass.of(manifest)
    settings = OperatorSettings(
        toolchain=Toolchain(image="b", digest="d"), serving_image="s", store=StoreAccess(uri="s3://b/p")
    )
    extended, claims = devices(accelerator, 4)
    container = {
        "name": "server",
        "image": platform.cluster.busybox,
        "resources": resources({}, extended, claims),
        "securityContext": CONTAINER_SECURITY,
    }
    pod = pod_spec(settings, containers=[container], volumes=Volumes(), accelerator=accelerator, claims=claims)
    labels = {"app": "gpu"}
    platform.cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "gpu"},
            "spec": {
                "replicas": 5,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        namespace=platform.models,
    )
    try:
        # 2 nodes × 8 GPUs hold four pods of four; the fifth has to wait.
        def placed() -> list[str]:
            pods = platform.get("pods", "--selector=app=gpu")["items"]
            return [item["spec"]["nodeName"] for item in pods if "nodeName" in item["spec"]]

        eventually(lambda: len(placed()) == 4, 30, "four pods are placed")
        assert sorted(placed()) == sorted(gpu_nodes * 2)
        eventually(lambda: _counted(platform, gpu_nodes), 75, "the operator counts 16 GPUs, all in use")
    finally:
        platform.cluster.kubectl("delete", "deployment", "gpu", f"--namespace={platform.models}", check=False)


def test_a_model_for_a_gpu_is_answered_with_what_is_missing(platform: Platform, model: Object) -> None:
    manifest = yaml.safe_load(MODEL_FILE.read_text())
    manifest["metadata"]["name"] = "on-gpu"
    manifest["spec"]["hardware"]["acceleratorClasses"] = ["nvidia-h100-80g"]
    platform.cluster.apply(manifest, namespace=platform.models)

    def refused() -> bool:
        conditions = platform.get("optimizedmodel", "on-gpu")["status"].get("conditions", ())
        return any(item["type"] == "Accepted" and item["status"] == "False" for item in conditions)

    eventually(refused, 30, "condition Accepted is False")
    found = condition(platform.get("optimizedmodel", "on-gpu"), "Accepted")
    assert found["reason"] == "FeatureNotAvailable"
    # The example's second rung names a method of ONNX Runtime, which TensorRT has not.
    assert "optimization.fallbacks[0].quantization.method: method Dynamic is not available" in found["message"]
    assert "with backend TensorRT" in found["message"]
    platform.cluster.kubectl("delete", "optimizedmodel", "on-gpu", f"--namespace={platform.models}")


def test_deleting_the_model_leaves_nothing(platform: Platform, model: Object) -> None:
    with platform.steps.timed("kubectl delete, everything gone"):
        platform.cluster.kubectl("delete", "optimizedmodel", MODEL, f"--namespace={platform.models}")
        eventually(lambda: not leftovers(platform), 90, f"nothing is left, not {leftovers(platform)}")


def test_every_program_had_the_rights_it_needed_and_few_others(platform: Platform, model: Object) -> None:
    accounts = {name: f"{platform.release}-enginewright-{name}" for name in ("operator", "gateway", "autoscaler", "gc")}
    refused, used = [], {name: set[tuple[str, str]]() for name in accounts}
    with platform.cluster.audit_log.open() as lines:
        for line in lines:
            entry = json.loads(line)
            user = entry["user"]["username"]
            name = next((key for key, account in accounts.items() if user.endswith(f":{account}")), None)
            if name is None:
                continue
            target = entry.get("objectRef", {})
            what = "/".join(part for part in (target.get("resource", ""), target.get("subresource", "")) if part)
            if entry.get("responseStatus", {}).get("code") == 403:
                refused.append((name, entry["verb"], what))
            used[name].add((what, entry["verb"]))
    assert refused == []
    assert all(used.values()), "each program asked the API server for something"
    grants = {name: granted(platform.cluster, account, platform.namespace) for name, account in accounts.items()}
    unused = {name: sorted(set().union(*found.values()) - used[name]) for name, found in grants.items()}
    print("granted, not used:", json.dumps(unused, indent=1))  # noqa: T201 - for who tightens the roles
    assert unused["gateway"] == unused["gc"] == []
    assert set(unused["operator"]) <= SELDOM["operator"]
    assert set(unused["autoscaler"]) <= SELDOM["autoscaler"]
    # The chart was told to look after one namespace; what is left of the cluster is classes, and what occupies them.
    assert {name: set(found) - {platform.models} for name, found in grants.items()} == {
        "operator": {"", platform.namespace}, "gateway": set(), "autoscaler": {platform.namespace}, "gc": {""}
    }  # fmt: skip


SELDOM = {
    "operator": {
        # Checked when server-side apply creates an object, but in the log as a patch.
        ("configmaps", "create"), ("deployments", "create"), ("services", "create"), ("poddisruptionbudgets", "create"),
        # Only where the add-on is installed, and then for models that span nodes.
        *(("leaderworkersets", verb) for verb in ("watch", "create", "patch", "delete")),
        # Only changed when something else than this story happens: drift, a shared build, a retired engine or attempt.
        ("configmaps", "delete"), ("configmaps", "patch"), ("deployments", "delete"), ("deployments", "patch"),
        ("enginebuilds", "delete"), ("enginebuilds", "patch"), ("services", "patch"),
        ("services", "delete"), ("services", "get"),
        # Only while a canary gets a share.
        ("endpointslices", "list"),
        # A class is in memory; it is asked for when it is gone, or when the outcome of a write is not known.
        ("acceleratorclasses", "get"),
        # Read while a builder runs, if a visit falls into that time.
        ("pods/log", "get"),
        # Asked for by an admission plug-in that is off here.
        ("enginebuilds/finalizers", "update"), ("optimizedmodels/finalizers", "update"),
    },
    # One replica is what the traffic of these tests needs.
    "autoscaler": {("optimizedmodels/scale", "patch")},
}  # fmt: skip


def _openai(platform: Platform) -> OpenAI:
    address = platform.address_of(f"{platform.release}-enginewright-gateway", platform.namespace)
    return OpenAI(base_url=f"http://{address}:8000/v1", api_key="none", timeout=30, max_retries=0)


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of writing of everything in it."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def _copied(folder: Path, to: Path) -> None:
    """The same engine under another key, with the owners that the builder's files have."""
    shutil.copytree(folder, to)
    for path in (to, *to.rglob("*")):
        original = (folder / path.relative_to(to)).stat()
        os.chown(path, original.st_uid, original.st_gid)


def _ready_addresses(platform: Platform) -> list[str]:
    slices = platform.get("endpointslices", f"--selector=kubernetes.io/service-name={MODEL}")["items"]
    return [
        endpoint["addresses"][0]
        for item in slices
        for endpoint in item.get("endpoints") or ()
        if endpoint["conditions"]["ready"]
    ]


def _counted(platform: Platform, nodes: list[str]) -> bool:
    """Whether the class's status knows the nodes; a change of the class has the operator look at it at once."""
    platform.cluster.kubectl("annotate", "acceleratorclass", "nvidia-h100-80g", f"e2e={time.time()}", "--overwrite")
    printed = platform.cluster.kubectl("get", "acceleratorclass", "nvidia-h100-80g", "--output=json").stdout
    status: dict[str, Any] = json.loads(printed).get("status", {})
    return status.get("nodes", 0) >= len(nodes) and status.get("inUse", 0) >= 16
