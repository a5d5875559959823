"""The Service of a model: one name for all its engines, its selector says which of them answers."""

from __future__ import annotations

from enginewright_api.names import child_labels

from ..effects import Object
from ..snapshot import ModelSnapshot
from .serving import PORTS, owned, serving_labels

SWITCHED_AT = "enginewright.io/switched-at"
_APP_PROTOCOLS = {"grpc": "kubernetes.io/h2c"}


def service(snapshot: ModelSnapshot, digest: str | None, *, switched_at: str) -> Object:
    """Service that selects one engine's pods, or those of all engines of the model when `digest` is None."""
    ports = []
    for name in ("http", "grpc", "metrics"):
        port: Object = {"name": name, "port": PORTS[name], "targetPort": name, "protocol": "TCP"}
        if name in _APP_PROTOCOLS:
            port["appProtocol"] = _APP_PROTOCOLS[name]
        ports.append(port)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": snapshot.name,
            "namespace": snapshot.namespace,
            "labels": child_labels(name=snapshot.name, component="server", model=snapshot.name),
            "annotations": {SWITCHED_AT: switched_at},
            "ownerReferences": [owned(snapshot)],
        },
        "spec": {"type": "ClusterIP", "selector": serving_labels(snapshot.name, digest), "ports": ports},
    }
