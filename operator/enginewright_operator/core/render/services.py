"""The Service of a model: one name for all its engines, its selector says which of them answers."""

from __future__ import annotations

from enginewright_api.names import canary_service_name, child_labels

from ..effects import Object
from ..snapshot import ModelSnapshot
from .serving import PORTS, owned, serving_labels

SWITCHED_AT = "enginewright.io/switched-at"
CANARY = "canary"
"""Component label of the Service that a canary has of its own."""
_APP_PROTOCOLS = {"grpc": "kubernetes.io/h2c"}


def service(snapshot: ModelSnapshot, digest: str | None, *, switched_at: str) -> Object:
    """Service that selects one engine's pods, or those of all engines of the model when `digest` is None."""
    return _service(snapshot, snapshot.name, "server", digest, {SWITCHED_AT: switched_at})


def canary_service(snapshot: ModelSnapshot, digest: str) -> Object:
    """Service of one engine's own: by its endpoints the gateway tells a canary's pods from all others."""
    return _service(snapshot, canary_service_name(snapshot.name, digest), CANARY, digest, {})


def _service(
    snapshot: ModelSnapshot, name: str, component: str, digest: str | None, annotations: dict[str, str]
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": snapshot.namespace,
            "labels": child_labels(name=snapshot.name, component=component, model=snapshot.name),
            "annotations": annotations,
            "ownerReferences": [owned(snapshot)],
        },
        "spec": {"type": "ClusterIP", "selector": serving_labels(snapshot.name, digest), "ports": _ports()},
    }


def _ports() -> list[Object]:
    ports = []
    for name in ("http", "grpc", "metrics"):
        port: Object = {"name": name, "port": PORTS[name], "targetPort": name, "protocol": "TCP"}
        if name in _APP_PROTOCOLS:
            port["appProtocol"] = _APP_PROTOCOLS[name]
        ports.append(port)
    return ports
