"""What all our pods share: no privileges, no token, a read-only root, the store and where they are scheduled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.operation_spec import Placement

from ..effects import Object
from ..settings import OperatorSettings, StoreAccess

USER_ID = 65532
"""That of the images and of the chart's pods: what shares a folder has one owner."""
CREDENTIALS = "/etc/enginewright/store"

CONTAINER_SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}

TERMINATION_VARIABLE: Object = {"name": "TERMINATION_MESSAGE_PATH", "value": "/dev/termination-log"}
"""Where our programs say how they ended; the kubelet's default path."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """Volumes of a pod with the places where a container sees them."""

    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)

    def __add__(self, other: Volumes) -> Volumes:
        return Volumes([*self.volumes, *other.volumes], [*self.mounts, *other.mounts])


def empty_folder(name: str, path: str) -> Volumes:
    """A scratch folder that goes with the pod."""
    return Volumes([{"name": name, "emptyDir": {}}], [{"name": name, "mountPath": path}])


def shared_memory(accelerator: AcceleratorClass | None) -> Volumes:
    """Room for ranks that exchange tensors; container runtimes give 64 MiB. Nothing on a CPU."""
    if accelerator is None or accelerator.spec.vendor == "cpu":
        return Volumes()
    volume = {"name": "shm", "emptyDir": {"medium": "Memory"}}
    return Volumes([volume], [{"name": "shm", "mountPath": "/dev/shm"}])  # noqa: S108 - the container's own


def secret_files(name: str, secret: str, path: str) -> Volumes:
    """A Secret as files that only the pod's user reads."""
    volume = {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}
    return Volumes([volume], [{"name": name, "mountPath": path, "readOnly": True}])


def claim_files(name: str, claim: str, path: str) -> Volumes:
    """A PersistentVolumeClaim that is only read."""
    volume = {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return Volumes([volume], [{"name": name, "mountPath": path, "readOnly": True}])


def config_map_files(name: str, config_map: str, path: str) -> Volumes:
    """A ConfigMap as files."""
    volume = {"name": name, "configMap": {"name": config_map}}
    return Volumes([volume], [{"name": name, "mountPath": path, "readOnly": True}])


def store_volumes(store: StoreAccess, *, read_only: bool) -> Volumes:
    """What a container needs mounted to reach the store."""
    found = Volumes()
    if store.credentials_secret:
        found += secret_files("store-credentials", store.credentials_secret, CREDENTIALS)
    folder = store.folder
    if folder is None:
        return found
    mount: Object = {"name": "store", "mountPath": folder, **({"readOnly": True} if read_only else {})}
    if store.volume_claim:
        return found + Volumes([{"name": "store", "persistentVolumeClaim": {"claimName": store.volume_claim}}], [mount])
    host_path = {"path": folder, "type": "DirectoryOrCreate"}
    return found + Volumes([{"name": "store", "hostPath": host_path}], [mount])


def store_environment(store: StoreAccess) -> list[Object]:
    """Address of the store and where its credentials lie; the credentials themselves never enter the environment."""
    found = [variable("STORE_URI", store.uri)]
    if store.credentials_secret:
        found.append(variable("AWS_SHARED_CREDENTIALS_FILE", f"{CREDENTIALS}/credentials"))
    if store.endpoint_url:
        found.append(variable("AWS_ENDPOINT_URL", store.endpoint_url))
    if store.region:
        found.append(variable("AWS_REGION", store.region))
    return found


def variable(name: str, value: str) -> Object:
    """One environment variable."""
    return {"name": name, "value": value}


def devices(accelerator: AcceleratorClass | None, count: int) -> tuple[dict[str, str], list[Object]]:
    """Extended resources for `count` accelerators, or resource claims where the cluster uses DRA. Nothing on a CPU."""
    if accelerator is None or accelerator.spec.vendor == "cpu":
        return {}, []
    template = accelerator.spec.resource_claim_template
    if template is not None:
        claims = [{"name": f"accelerator-{n}", "resourceClaimTemplateName": template} for n in range(count)]
        return {}, claims
    resource = accelerator.spec.resource
    return ({resource.name: str(resource.quantity * count)} if resource is not None else {}), []


def resources(requests: dict[str, str], limits: dict[str, str], claims: list[Object]) -> Object:
    """Resources of one container; empty parts left out."""
    found: Object = {}
    if requests:
        found["requests"] = requests
    if limits:
        found["limits"] = limits
    if claims:
        found["claims"] = [{"name": claim["name"]} for claim in claims]
    return found


def pod_spec(
    settings: OperatorSettings,
    *,
    containers: list[Object],
    volumes: Volumes,
    accelerator: AcceleratorClass | None,
    claims: list[Object],
    placement: Placement | None = None,
    **rest: Any,
) -> Object:
    """A pod that Pod Security `restricted` lets in (but for the hostPath of a one-node store)."""
    scheduling = accelerator.spec.scheduling if accelerator is not None else None
    chosen = placement or Placement()
    selector = {**(scheduling.node_selector if scheduling else {}), **chosen.node_selector}
    tolerations = [*(scheduling.tolerations if scheduling else []), *chosen.tolerations]
    optional = {
        "nodeSelector": selector,
        "tolerations": [toleration.wire() for toleration in tolerations],
        "runtimeClassName": scheduling.runtime_class_name if scheduling else "",
        "priorityClassName": chosen.priority_class_name,
        "resourceClaims": claims,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": volumes.volumes,
        **{key: value for key, value in optional.items() if value},
        **rest,
    }
