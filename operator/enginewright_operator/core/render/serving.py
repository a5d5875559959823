"""What serves one engine: a Deployment whose pods admit the artifact before they load it, and its batching file."""

from __future__ import annotations

import json
from dataclasses import dataclass

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.identity import digest_of
from enginewright_api.names import LABEL_ARTIFACT, LABEL_MODEL, child_labels, deployment_name
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.outcome import ArtifactReference

from ..effects import Object
from ..engine_builds import model_owner
from ..settings import OperatorSettings
from ..snapshot import ModelSnapshot
from .pods import (
    CONTAINER_SECURITY,
    TERMINATION_VARIABLE,
    Volumes,
    config_map_files,
    devices,
    empty_folder,
    pod_spec,
    resources,
    shared_memory,
    store_environment,
    store_volumes,
    variable,
)

PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002, "health": 8003}
MODEL_FOLDER = "/models"
BATCHING_FOLDER = "/etc/enginewright/batching"
TRUST_FOLDER = "/etc/enginewright/trust"
CACHE_FOLDER = "/cache"
GRACE_SECONDS = 45
LEAVE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Engine:
    """What is to be served."""

    artifact: ArtifactReference
    key: str
    build_name: str

    @property
    def digest(self) -> str:
        """sha256 hex of the manifest, without `sha256:`."""
        return self.artifact.digest.removeprefix("sha256:")


def owned(snapshot: ModelSnapshot) -> Object:
    """Owner reference of a child that only this model has."""
    return {**model_owner(snapshot), "controller": True, "blockOwnerDeletion": True}


def batching_config_map(snapshot: ModelSnapshot, spec: OptimizedModelSpec) -> Object:
    """Batching settings, named by their content: other settings are other pods."""
    batching = spec.batching.wire()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{snapshot.name}-batching-{digest_of(batching)[:8]}",
            "namespace": snapshot.namespace,
            "labels": child_labels(name=snapshot.name, component="batching", model=snapshot.name),
            "ownerReferences": [owned(snapshot)],
        },
        "data": {"batching.json": json.dumps(batching, sort_keys=True)},
    }


def deployment(
    snapshot: ModelSnapshot,
    spec: OptimizedModelSpec,
    engine: Engine,
    accelerator: AcceleratorClass,
    *,
    replicas: int,
) -> Object:
    """The Deployment of one engine. With surge its own rolling update keeps each ready pod until its successor is."""
    metadata = metadata_of(snapshot, engine)
    count = spec.hardware.accelerators_per_replica
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": spec.rollout.progress_deadline_seconds,
            "selector": {"matchLabels": serving_labels(snapshot.name, engine.digest)},
            "strategy": {
                "type": "RollingUpdate",
                # Kubernetes wants one of them above 0; without surge a pod goes before its successor comes.
                "rollingUpdate": {
                    "maxSurge": spec.rollout.max_surge,
                    "maxUnavailable": 0 if spec.rollout.max_surge else 1,
                },
            },
            "template": {
                "metadata": {"labels": metadata["labels"]},
                "spec": server_pod(snapshot, spec, engine, accelerator, accelerators=count),
            },
        },
    }


def metadata_of(snapshot: ModelSnapshot, engine: Engine) -> Object:
    """Name, labels and owner of what serves one engine, whatever kind of object it is."""
    labels = child_labels(
        name=snapshot.name, component="server", model=snapshot.name, key=engine.key, artifact=engine.digest
    )
    return {
        "name": deployment_name(snapshot.name, engine.digest),
        "namespace": snapshot.namespace,
        "labels": labels,
        "annotations": {"enginewright.io/engine-build": engine.build_name},
        "ownerReferences": [owned(snapshot)],
    }


def serving_labels(model: str, digest: str | None) -> dict[str, str]:
    """Labels that pods of a model carry; with a digest, those of one engine."""
    artifact = {LABEL_ARTIFACT: digest[:32]} if digest is not None else {}
    return {"app.kubernetes.io/component": "server", LABEL_MODEL: model, **artifact}


def server_pod(
    snapshot: ModelSnapshot,
    spec: OptimizedModelSpec,
    engine: Engine,
    accelerator: AcceleratorClass,
    *,
    accelerators: int,
) -> Object:
    """The pod that admits an engine and serves it, on `accelerators` of one node."""
    settings = snapshot.settings
    batching = batching_config_map(snapshot, spec)["metadata"]["name"]
    tmp = empty_folder("tmp", "/tmp")  # noqa: S108 - the container's own
    models = empty_folder("models", MODEL_FOLDER)
    admission = (
        config_map_files("batching", batching, BATCHING_FOLDER)
        + config_map_files("trust", settings.public_key_config_map, TRUST_FOLDER)
        + empty_folder("cache", CACHE_FOLDER)
        + store_volumes(settings.store, read_only=True)
    )
    shared = shared_memory(accelerator)
    volumes = models + tmp + admission
    extended, claims = devices(accelerator, accelerators)
    return pod_spec(
        settings,
        containers=[_server(snapshot, spec, models + tmp + shared, extended=extended, claims=claims)],
        volumes=volumes + shared,
        accelerator=accelerator,
        claims=claims,
        placement=spec.placement,
        initContainers=[_admission(snapshot, engine, accelerator, settings, volumes)],
        terminationGracePeriodSeconds=GRACE_SECONDS,
    )


def _admission(
    snapshot: ModelSnapshot,
    engine: Engine,
    accelerator: AcceleratorClass,
    settings: OperatorSettings,
    volumes: Volumes,
) -> Object:
    return {
        "name": "admit",
        "image": settings.serving_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["enginewright-serving"],
        "args": [
            "admit", "--artifact", engine.artifact.uri, "--digest", f"sha256:{engine.digest}",
            "--dest", "$(MODEL_DIR)", "--model-name", snapshot.name, "--batching", "$(BATCHING_FILE)",
            "--accelerator-class", accelerator.metadata.name, "--public-key", "$(PUBLIC_KEY)",
            "--cache-dir", "$(CACHE_DIR)",
        ],
        "env": [
            variable("MODEL_DIR", MODEL_FOLDER),
            variable("BATCHING_FILE", f"{BATCHING_FOLDER}/batching.json"),
            variable("PUBLIC_KEY", f"{TRUST_FOLDER}/public.pem"),
            variable("CACHE_DIR", CACHE_FOLDER),
            *store_environment(settings.store),
            TERMINATION_VARIABLE,
        ],
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": volumes.mounts,
    }  # fmt: skip


def _server(
    snapshot: ModelSnapshot,
    spec: OptimizedModelSpec,
    volumes: Volumes,
    *,
    extended: dict[str, str],
    claims: list[Object],
) -> Object:
    chosen, settings = spec.placement.resources, snapshot.settings
    return {
        "name": "server",
        "image": settings.serving_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["enginewright-serving"],
        "args": [
            "serve", "--repository", "$(MODEL_DIR)", "--model", snapshot.name, "--http-port", "$(HTTP_PORT)",
            "--grpc-port", "$(GRPC_PORT)", "--metrics-port", "$(METRICS_PORT)", "--health-port", "$(HEALTH_PORT)",
            "--address", "$(POD_ADDRESS)",
        ],
        "env": [
            variable("MODEL_DIR", MODEL_FOLDER),
            variable("POD_ADDRESS", settings.pod_address),
            *(variable(f"{name.upper()}_PORT", str(port)) for name, port in PORTS.items()),
            TERMINATION_VARIABLE,
        ],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in PORTS.items()],
        "resources": resources(dict(chosen.requests), {**chosen.limits, **extended}, claims),
        "securityContext": CONTAINER_SECURITY,
        # Endpoints forget the pod before the server stops taking requests.
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        "startupProbe": _probe("/livez", period_seconds=1, failure_threshold=300),
        "readinessProbe": _probe("/readyz", period_seconds=2, failure_threshold=2),
        "livenessProbe": _probe("/livez", period_seconds=5, failure_threshold=6),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": volumes.mounts,
    }  # fmt: skip


def _probe(path: str, *, period_seconds: int, failure_threshold: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failure_threshold,
    }
