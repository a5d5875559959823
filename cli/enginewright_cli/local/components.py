"""Manifests of local mode: the platform's own programs as Deployments, and what each namespace needs."""

from __future__ import annotations

import json
import sys
from typing import Any

from enginewright_api.names import child_labels
from enginewright_cli.state import StateDirectory

SYSTEM_NAMESPACE = "enginewright-system"
SIGNING_SECRET = "enginewright-signing"  # noqa: S105 - the name of a Secret
TRUST_CONFIG_MAP = "enginewright-trust"
GATEWAY = "gateway"
HTTP_PORT = 8300
GRPC_PORT = 8301

Object = dict[str, Any]


def namespace_objects(namespace: str, state: StateDirectory) -> list[Object]:
    """Signing key and trust of a namespace, as the chart's hooks make them on a cluster."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SIGNING_SECRET, "namespace": namespace},
            "type": "Opaque",
            "stringData": {"private.pem": state.signing_key.read_text()},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": TRUST_CONFIG_MAP, "namespace": namespace},
            "data": {"public.pem": state.public_key.read_text()},
        },
    ]


def system_objects(state: StateDirectory, *, http_port: int, grpc_port: int, scale_down_seconds: float) -> list[Object]:
    """Operator, gateway and autoscaler. They run under the node agent like everything else."""
    health = {"health": 9000}
    reached = ["--health-port", "$(HEALTH_PORT)", "--gateway-port", str(http_port)]
    return [
        _deployment(
            "operator", state, [*reached, "--gateway-grpc-port", str(grpc_port)], ports=health, ready="/healthz"
        ),
        _deployment(
            "autoscaler",
            state,
            [*reached, "--scale-down-seconds", f"{scale_down_seconds:g}"],
            ports=health,
            ready="/healthz",
        ),
        _deployment(
            GATEWAY,
            state,
            ["--http-port", "$(HTTP_PORT)", "--grpc-port", "$(GRPC_PORT)"],
            ports={"http": http_port, "grpc": grpc_port},
            ready="/readyz",
        ),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": GATEWAY,
                "namespace": SYSTEM_NAMESPACE,
                "annotations": {"enginewright.io/local-ports": json.dumps({"http": http_port, "grpc": grpc_port})},
            },
            "spec": {
                "selector": {"app.kubernetes.io/component": GATEWAY},
                "ports": [
                    {"name": "http", "port": http_port, "targetPort": "http"},
                    {"name": "grpc", "port": grpc_port, "targetPort": "grpc"},
                ],
            },
        },
    ]


def _deployment(
    component: str, state: StateDirectory, arguments: list[str], *, ports: dict[str, int], ready: str
) -> Object:
    labels = child_labels(name=component, component=component)
    first = next(iter(ports))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": component, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app.kubernetes.io/component": component}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 15,
                    "containers": [
                        {
                            "name": component,
                            "image": "local",
                            "command": [sys.executable, "-m", "enginewright_cli", "system", component],
                            "args": ["--state-dir", str(state.root), *arguments],
                            "env": [
                                {"name": f"{name.upper()}_PORT", "value": str(port)} for name, port in ports.items()
                            ],
                            "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
                            "readinessProbe": {"httpGet": {"path": ready, "port": first}, "periodSeconds": 2},
                            "livenessProbe": {
                                "httpGet": {"path": "/healthz", "port": first},
                                "initialDelaySeconds": 10,
                                "periodSeconds": 5,
                                "failureThreshold": 6,
                            },
                        }
                    ],
                },
            },
        },
    }
