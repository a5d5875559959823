"""Facts about pods, and new ones from a template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..port import Object
from .names import FINALIZER, NODE_NAME

FINISHED = frozenset({"Succeeded", "Failed"})


def uid_of(item: Object) -> str:
    """metadata.uid."""
    return str(item["metadata"]["uid"])


def phase(pod: Object) -> str:
    """status.phase; Pending before the kubelet has seen it."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_finished(pod: Object) -> bool:
    """Succeeded or Failed."""
    return phase(pod) in FINISHED


def is_leaving(pod: Object) -> bool:
    """Being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def condition(item: Object, kind: str) -> Mapping[str, Any] | None:
    """A condition of the status by its type."""
    found: list[Mapping[str, Any]] = [
        entry for entry in item.get("status", {}).get("conditions") or () if entry["type"] == kind
    ]
    return found[0] if found else None


def is_ready(pod: Object) -> bool:
    """Condition Ready, and not on the way out."""
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True" and not is_leaving(pod) and not is_finished(pod)


def ready_since(pod: Object) -> datetime | None:
    """When it became ready; None if it is not."""
    ready = condition(pod, "Ready")
    return parse_time(ready["lastTransitionTime"]) if ready is not None and is_ready(pod) else None


def parse_time(text: str) -> datetime:
    """RFC 3339."""
    return datetime.fromisoformat(text)


def owned_by(item: Object, owner: Object) -> bool:
    """Whether `owner` is the controller of `item`."""
    return any(
        reference.get("uid") == uid_of(owner) and reference.get("controller")
        for reference in item["metadata"].get("ownerReferences") or ()
    )


def template_hash(template: Mapping[str, Any]) -> str:
    """Ten hex digits that change when the pod template does."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def from_template(owner: Object, name: str, labels: Mapping[str, str]) -> Object:
    """A pod of a Deployment's or Job's template, bound to this node."""
    template = owner["spec"]["template"]
    metadata = template.get("metadata") or {}
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(metadata.get("labels") or {}), **labels},
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [reference],
            "finalizers": [FINALIZER],
        },
        "spec": {**template["spec"], "nodeName": NODE_NAME},
    }
