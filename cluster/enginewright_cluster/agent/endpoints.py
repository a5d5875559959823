"""EndpointSlices of a Service: one a ready pod, since every local pod has ports of its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..objects.labels import matches
from ..port import Object
from .names import COMPONENT, LOCAL_PORTS, MANAGED_BY, NODE_ADDRESS, NODE_NAME, SERVICE_NAME
from .pods import is_ready, uid_of
from .ports import port_map


def slices_for(service: Object, pods: Sequence[Object]) -> list[Object]:
    """The slices that a Service should have now; none for one without a selector."""
    selector = service["spec"].get("selector")
    if not selector:
        return []
    namespace = service["metadata"]["namespace"]
    return [
        _slice(service, pod)
        for pod in pods
        if pod["metadata"]["namespace"] == namespace and matches(selector, pod) and is_ready(pod)
    ]


def _slice(service: Object, pod: Object) -> Object:
    service_name, pod_name = service["metadata"]["name"], pod["metadata"]["name"]
    allocated = port_map(pod["metadata"].get("annotations", {}).get(LOCAL_PORTS))
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service_name}-{pod_name}"[:253].rstrip("-."),
            "namespace": pod["metadata"]["namespace"],
            "labels": {SERVICE_NAME: service_name, MANAGED_BY: COMPONENT},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": service_name,
                    "uid": uid_of(service),
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [NODE_ADDRESS],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": NODE_NAME,
                "targetRef": {
                    "kind": "Pod",
                    "namespace": pod["metadata"]["namespace"],
                    "name": pod_name,
                    "uid": uid_of(pod),
                },
            }
        ],
        "ports": [
            {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            for port in service["spec"].get("ports") or ()
            if (number := _target(port, pod, allocated)) is not None
        ],
    }


def _target(port: Mapping[str, Any], pod: Object, allocated: Mapping[str, int]) -> int | None:
    """The real port behind a Service's port: targetPort is a name, or a number that a named port may have."""
    wanted = port.get("targetPort", port["port"])
    if isinstance(wanted, str):
        return allocated.get(wanted)
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports") or ():
            if declared["containerPort"] == wanted and declared.get("name") in allocated:
                return allocated[declared["name"]]
    return int(wanted)
