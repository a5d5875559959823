"""The Job of one build attempt and the ConfigMap with its recipe."""

from __future__ import annotations

import json

from enginewright_api.engine_build import EngineBuild
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.meta import API_VERSION
from enginewright_api.names import LABEL_EVIDENCE, build_job_name, child_labels
from enginewright_api.source import Dataset, Source

from ..effects import Object
from ..job_outcomes import LABEL_ATTEMPT
from ..settings import OperatorSettings
from ..snapshot import BuildSnapshot
from .pods import (
    CONTAINER_SECURITY,
    TERMINATION_VARIABLE,
    Volumes,
    claim_files,
    config_map_files,
    devices,
    empty_folder,
    pod_spec,
    resources,
    secret_files,
    shared_memory,
    store_environment,
    store_volumes,
    variable,
)

RECIPE_FOLDER = "/etc/enginewright/recipe"
SIGNING_FOLDER = "/etc/enginewright/signing"
DATASETS_FOLDER = "/datasets"
VOLUMES_FOLDER = "/volumes"
TOKENS_FOLDER = "/tokens"
WORK_FOLDER = "/work"


def build_job(
    snapshot: BuildSnapshot, build: EngineBuild, request: EvidenceRequest, *, attempt: int, memory_gib: float
) -> Object:
    """One attempt to build the engine and to measure `request`. The Job itself never retries: the operator does."""
    settings, key = snapshot.settings, build.spec.key
    name = build_job_name(key, request.digest, attempt)
    labels = {
        **child_labels(name=build.metadata.name, component="builder", key=key),
        LABEL_EVIDENCE: request.digest[:32],
        LABEL_ATTEMPT: str(attempt),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": build.metadata.namespace,
            "labels": labels,
            "ownerReferences": [build_owner(build)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": settings.builds.deadline_seconds,
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(snapshot, settings, build, request, recipe_name=name, memory_gib=memory_gib),
            },
        },
    }


def recipe_config_map(build: EngineBuild, request: EvidenceRequest, job: Object) -> Object:
    """The file that the builder reads; named like the Job that mounts it."""
    metadata = job["metadata"]
    content = json.dumps(build.spec.request(request).wire(), sort_keys=True, indent=1)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {key: metadata[key] for key in ("name", "namespace", "labels", "ownerReferences")},
        "data": {"recipe.json": content},
    }


def build_owner(build: EngineBuild) -> Object:
    """Owner reference to an EngineBuild: Job and recipe go with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "EngineBuild",
        "name": build.metadata.name,
        "uid": build.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _pod(
    snapshot: BuildSnapshot,
    settings: OperatorSettings,
    build: EngineBuild,
    request: EvidenceRequest,
    *,
    recipe_name: str,
    memory_gib: float,
) -> Object:
    volumes = (
        config_map_files("recipe", recipe_name, RECIPE_FOLDER)
        + secret_files("signing", settings.signing_key_secret, SIGNING_FOLDER)
        + empty_folder("work", WORK_FOLDER)
        + empty_folder("tmp", "/tmp")  # noqa: S108 - the container's own
        + store_volumes(settings.store, read_only=False)
        + shared_memory(snapshot.accelerator)
        + _input_volumes(build, request)
    )
    extended, claims = devices(snapshot.accelerator, 1)
    mebibytes = round(memory_gib * 1024)
    memory = f"{mebibytes}Mi" if mebibytes % 1024 else f"{mebibytes // 1024}Gi"
    container = {
        "name": "builder",
        # The one that the key was made with: after an upgrade the operator has another.
        "image": build.spec.toolchain.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["enginewright-builder"],
        "args": [
            "run", "--recipe", "$(RECIPE_FILE)", "--store", "$(STORE_URI)", "--workdir", "$(WORK_DIR)",
            "--signing-key", "$(SIGNING_KEY)",
        ],
        "env": [
            variable("RECIPE_FILE", f"{RECIPE_FOLDER}/recipe.json"),
            variable("SIGNING_KEY", f"{SIGNING_FOLDER}/private.pem"),
            variable("WORK_DIR", WORK_FOLDER),
            variable("HOME", WORK_FOLDER),
            variable("DATASETS_DIR", DATASETS_FOLDER),
            variable("VOLUMES_DIR", VOLUMES_FOLDER),
            variable("TOKENS_DIR", TOKENS_FOLDER),
            *store_environment(settings.store),
            TERMINATION_VARIABLE,
        ],
        "resources": resources({"cpu": settings.builds.cpu, "memory": memory}, {"memory": memory, **extended}, claims),
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": volumes.mounts,
    }  # fmt: skip
    return pod_spec(
        settings,
        containers=[container],
        volumes=volumes,
        accelerator=snapshot.accelerator,
        claims=claims,
        restartPolicy="Never",
    )


def _input_volumes(build: EngineBuild, request: EvidenceRequest) -> Volumes:
    """What recipe and evidence read: $DATASETS_DIR/<ConfigMap>, $VOLUMES_DIR/<claim>, $TOKENS_DIR/<Secret>."""
    recipe = build.spec.recipe
    quantization, distillation = recipe.quantization, recipe.distillation
    student = distillation.student.source if distillation is not None else None
    sources = [source for source in (recipe.source, student, recipe.draft_source) if source is not None]
    candidates: list[Dataset | None] = [
        request.dataset,
        quantization.calibration.dataset if quantization is not None else None,
        recipe.training,
    ]
    datasets = [dataset for dataset in candidates if dataset is not None]
    config_maps = {item.config_map.name for item in datasets if item.config_map is not None}
    inputs: list[Source | Dataset] = [*sources, *datasets]
    claims = {item.persistent_volume_claim.claim_name for item in inputs if item.persistent_volume_claim is not None}
    hubs = [item.hugging_face for item in inputs if item.hugging_face is not None]
    secrets = {hub.token_secret_ref.name for hub in hubs if hub.token_secret_ref is not None}
    found = Volumes()
    for number, name in enumerate(sorted(config_maps)):
        found += config_map_files(f"dataset-{number}", name, f"{DATASETS_FOLDER}/{name}")
    for number, name in enumerate(sorted(claims)):
        found += claim_files(f"volume-{number}", name, f"{VOLUMES_FOLDER}/{name}")
    for number, name in enumerate(sorted(secrets)):
        found += secret_files(f"token-{number}", name, f"{TOKENS_FOLDER}/{name}")
    return found
