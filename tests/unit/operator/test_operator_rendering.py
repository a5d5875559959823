"""Manifests as they are applied; `pytest -k operator_rendering --snapshot-update` renews the golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import EngineBuild
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.engine_builds import create_engine_build
from enginewright_operator.core.recipes import resolve_rungs
from enginewright_operator.core.render.budgets import disruption_budget
from enginewright_operator.core.render.jobs import build_job, recipe_config_map
from enginewright_operator.core.render.services import service
from enginewright_operator.core.render.serving import Engine, batching_config_map, deployment
from enginewright_operator.core.settings import OperatorSettings, StoreAccess
from enginewright_operator.core.snapshot import BuildSnapshot
from tests.scenarios.evidence import artifact
from tests.scenarios.models import accelerator_class, gpu_class, settings
from tests.unit.operator.snapshots import drafted, snapshot


class GoldenYaml(SingleFileSnapshotExtension):
    """One readable file a manifest."""

    _write_mode = WriteMode.TEXT
    file_extension = "yaml"

    def serialize(self, data: Any, **_: Any) -> str:
        """YAML, keys in the order in which they are rendered."""
        return yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False, width=120)


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Compares with `__snapshots__`."""
    return snapshot.use_extension(GoldenYaml)


BUCKET = StoreAccess(
    "s3://engines", credentials_secret="store-keys", endpoint_url="http://minio.store:9000", region="eu-1"
)
CLAIM = StoreAccess("file:///var/lib/store", volume_claim="engines")
FULL = {
    "hardware": {"acceleratorClasses": ["nvidia-l4"], "acceleratorsPerReplica": 2},
    "parallelism": {"tensor": 2},
    "placement": {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "priorityClassName": "high",
        "resources": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
    },
    "rollout": {"maxSurge": 2, "progressDeadlineSeconds": 300},
}


def serving(spec: dict[str, Any], hardware: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Deployment for a spec on a class."""
    found = snapshot(spec, classes=(hardware,), operator_settings=settings(**changes))
    draft = drafted(found, acceptance)
    assert draft.spec is not None
    engine = Engine(artifact("a" * 64), "b" * 64, "eb-bbbbbbbbbbbbbbbb")
    return deployment(found, draft.spec, engine, AcceleratorClass.of(hardware), replicas=2)


def building(
    hardware: dict[str, Any], inputs: dict[str, Any] | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Job and recipe of a build whose rows lie in ConfigMaps, unless `inputs` says otherwise."""
    given: OperatorSettings = settings(**changes)
    rows = {"configMap": {"name": "rows"}}
    spec = {
        "optimization": {
            "quantization": {"format": "INT8", "calibration": {"dataset": {"configMap": {"name": "cal"}}}}
        },
        "quality": {"dataset": rows},
        "hardware": {"acceleratorClasses": [hardware["metadata"]["name"]]},
        **(inputs or {}),
    }
    found = snapshot(spec, classes=(hardware,), operator_settings=given)
    draft = drafted(found, acceptance)
    assert draft.spec is not None
    parsed = AcceleratorClass.of(hardware)
    rung = resolve_rungs(draft.spec, parsed, given.toolchain)[0]
    manifest = create_engine_build(found, rung).manifest
    manifest["metadata"]["uid"] = "uid-2"
    build = EngineBuild.of(manifest)
    job = build_job(BuildSnapshot(manifest, given, accelerator=parsed), build, rung.evidence, attempt=1, memory_gib=4.0)
    return job, recipe_config_map(build, rung.evidence, job)


def test_deployment_on_a_cpu(golden: SnapshotAssertion) -> None:
    assert serving({}, accelerator_class()) == golden


def test_deployment_on_gpus_from_a_bucket(golden: SnapshotAssertion) -> None:
    rendered = serving(FULL, gpu_class(), store=BUCKET, image_pull_secrets=("pull",), pod_address="127.0.0.1")
    assert rendered == golden


def test_deployment_with_resource_claims(golden: SnapshotAssertion) -> None:
    hardware = gpu_class()
    hardware["spec"] |= {"resourceClaimTemplate": "l4"}
    del hardware["spec"]["resource"]
    assert serving(FULL, hardware, store=CLAIM) == golden


def test_job_and_recipe(golden: SnapshotAssertion) -> None:
    assert list(building(accelerator_class())) == golden


def test_job_on_a_gpu_from_a_bucket(golden: SnapshotAssertion) -> None:
    assert building(gpu_class(), store=BUCKET)[0] == golden


def test_inputs_of_a_build_are_mounted_where_the_builder_looks() -> None:
    hub = {"repository": "a/b", "revision": "0" * 40, "tokenSecretRef": {"name": "hub", "key": "token"}}
    inputs = {
        "source": {"huggingFace": hub},
        "quality": {"dataset": {"persistentVolumeClaim": {"claimName": "rows", "path": "a.jsonl"}}},
    }
    job, _ = building(accelerator_class(), inputs)
    pod = job["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/tokens/hub"]["name"]]["secret"]["secretName"] == "hub"
    claim = volumes[mounts["/volumes/rows"]["name"]]["persistentVolumeClaim"]
    assert claim == {"claimName": "rows", "readOnly": True}
    variables = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}
    assert (variables["TOKENS_DIR"], variables["VOLUMES_DIR"]) == ("/tokens", "/volumes")
    rows = hub | {"tokenSecretRef": {"name": "rows-hub", "key": "token"}, "split": "validation"}
    for secrets in (
        {"quality": {"dataset": {"huggingFace": rows}}},
        {**inputs, "quality": {"dataset": {"huggingFace": rows}}},
    ):
        pod = building(accelerator_class(), secrets)[0]["spec"]["template"]["spec"]
        mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert "/tokens/rows-hub" in mounted
        assert ("/tokens/hub" in mounted) is ("source" in secrets)
    source = {"source": {"persistentVolumeClaim": {"claimName": "models", "path": "minilm"}}}
    pod = building(accelerator_class(), source)[0]["spec"]["template"]["spec"]
    assert "/volumes/models" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    for kind, mounted_at in (
        ({"huggingFace": hub}, "/tokens/hub"),
        ({"persistentVolumeClaim": {"claimName": "drafts"}}, "/volumes/drafts"),
    ):
        drafting = {"method": "DraftModel", "draft": {"source": kind}}
        drafts = {"task": "TextGeneration", "runtime": {"speculativeDecoding": drafting}}
        pod = building(accelerator_class(), drafts)[0]["spec"]["template"]["spec"]
        assert mounted_at in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}


def test_service_and_batching(golden: SnapshotAssertion) -> None:
    found = snapshot({"batching": {"maxQueueDelayMicroseconds": 500}})
    draft = drafted(found, acceptance, class_choice)
    assert draft.spec is not None
    both = [
        service(found, "a" * 64, switched_at="2026-01-01T00:00:00Z"),
        service(found, None, switched_at="2026-01-01T00:00:00Z"),
        batching_config_map(found, draft.spec),
    ]
    assert both == golden


def manifests() -> list[dict[str, Any]]:
    """Everything that is rendered."""
    claimed = gpu_class()
    claimed["spec"] |= {"resourceClaimTemplate": "l4"}
    del claimed["spec"]["resource"]
    found = snapshot()
    draft = drafted(found, acceptance)
    assert draft.spec is not None
    served = serving({}, accelerator_class())
    served["metadata"]["uid"] = "uid-3"
    return [
        served,
        disruption_budget(found, served),
        serving(FULL, gpu_class(), store=BUCKET),
        serving(FULL, claimed, store=CLAIM),
        *building(accelerator_class()),
        *building(gpu_class(), store=BUCKET),
        service(found, "a" * 64, switched_at="2026-01-01T00:00:00Z"),
        batching_config_map(found, draft.spec),
    ]


def test_manifests_satisfy_the_schemas_of_kubernetes() -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_pods_are_restricted() -> None:
    """Pod Security `restricted`, field by field; no token, no writable root."""
    for manifest in manifests():
        if manifest["kind"] not in ("Job", "Deployment"):
            continue
        pod = manifest["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/tmp"}
        assert all("secret" not in item for item in _served_volumes(manifest))


def _served_volumes(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Volumes that the container which answers requests sees."""
    if manifest["kind"] != "Deployment":
        return []
    pod = manifest["spec"]["template"]["spec"]
    seen = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    return [volume for volume in pod["volumes"] if volume["name"] in seen]


def test_arguments_name_ports_and_folders_through_the_environment_only() -> None:
    """So that the same manifest runs as processes of one machine: see docs/architecture.md."""
    for manifest in manifests():
        if manifest["kind"] not in ("Job", "Deployment"):
            continue
        pod = manifest["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            variables = {item["name"] for item in container["env"]}
            paths = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] != "store"]
            for argument in container["args"]:
                assert not any(argument.startswith(path) for path in paths), argument
                if argument.startswith("$("):
                    assert argument[2:-1] in variables
            for port in container.get("ports", []):
                value = next(
                    item["value"] for item in container["env"] if item["name"] == f"{port['name'].upper()}_PORT"
                )
                assert value == str(port["containerPort"])


def test_a_folder_as_store_must_be_reachable() -> None:
    from enginewright_api.errors import DeterministicError

    with pytest.raises(DeterministicError, match="volume claim"):
        StoreAccess("file:///store")


def test_golden_files_are_all_used() -> None:
    names = {path.stem for path in (Path(__file__).parent / "__snapshots__" / Path(__file__).stem).glob("*.yaml")}
    assert names == {name for name in globals() if name.startswith("test_") and "golden" in _arguments(name)}


def _arguments(name: str) -> set[str]:
    return set(globals()[name].__annotations__)
