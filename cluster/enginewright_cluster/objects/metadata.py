"""Identity of objects: names, times, and what a kind has (status, scale, immutable fields)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..port import (
    ACCELERATOR_CLASS,
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    LEADER_WORKER_SET,
    NAMESPACE,
    NODE,
    OPTIMIZED_MODEL,
    POD,
    SERVICE,
    ConflictError,
    InvalidError,
    Kind,
    Object,
    Ref,
    kind_of,
)

DEFAULT_NAMESPACE = "default"
OUR_KINDS = frozenset({OPTIMIZED_MODEL, ENGINE_BUILD, ACCELERATOR_CLASS})
WITH_STATUS = OUR_KINDS | {JOB, DEPLOYMENT, LEADER_WORKER_SET, POD, SERVICE, NODE, NAMESPACE}
WITH_SCALE = frozenset({OPTIMIZED_MODEL, DEPLOYMENT, LEADER_WORKER_SET})
WITH_GENERATION = OUR_KINDS | {JOB, DEPLOYMENT, LEADER_WORKER_SET, POD}
# What the server never lets change once written (paths below spec).
IMMUTABLE: dict[Kind, tuple[str, ...]] = {JOB: ("template", "selector", "completions"), DEPLOYMENT: ("selector",)}

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_SERVER_OWNED = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields")


def timestamp(now: datetime) -> str:
    """RFC 3339 with seconds, as the API server writes it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ref_of(item: Mapping[str, Any]) -> Ref:
    """Address of an object or manifest. Raises InvalidError when it has no name."""
    kind = kind_of(item)
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping) or not metadata.get("name"):
        raise InvalidError("Invalid", f"{kind.kind}: metadata.name: is required")
    namespace = (metadata.get("namespace") or DEFAULT_NAMESPACE) if kind.namespaced else None
    return Ref(kind, str(metadata["name"]), namespace)


def normal(ref: Ref) -> Ref:
    """The address with its default namespace, or without one for a cluster-scoped kind."""
    return Ref(ref.kind, ref.name, (ref.namespace or DEFAULT_NAMESPACE) if ref.kind.namespaced else None)


def shown(ref: Ref) -> str:
    """An address as people write it."""
    return f"{ref.kind.kind} {ref.namespace + '/' if ref.namespace else ''}{ref.name}"


def checked_name(ref: Ref) -> None:
    """InvalidError unless the name is a DNS subdomain."""
    if len(ref.name) > 253 or not _NAME.fullmatch(ref.name):
        raise InvalidError(
            "Invalid",
            f"{shown(ref)}: metadata.name: must be at most 253 lower-case letters, digits, '-' and '.', beginning and"
            f" ending with a letter or digit, got {ref.name!r}",
        )


def without_server_fields(manifest: Object) -> Object:
    """A manifest as a client states it: no status, none of the metadata that the server keeps."""
    kind = kind_of(manifest)
    kept = {key: value for key, value in manifest.items() if key != "status" or kind not in WITH_STATUS}
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in _SERVER_OWNED}
    ref = ref_of(manifest)
    metadata.pop("namespace", None)
    return kept | {"metadata": metadata | ({"namespace": ref.namespace} if ref.namespace else {})}


def with_server_fields(item: Object, live: Object) -> Object:
    """The item with identity and server-kept metadata taken from the live object."""
    metadata = dict(item["metadata"])
    for key in ("name", "namespace", *_SERVER_OWNED):
        if key in live["metadata"]:
            metadata[key] = live["metadata"][key]
        else:
            metadata.pop(key, None)
    return item | {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata}


def check_preconditions(stated: Mapping[str, Any], live: Object | None, ref: Ref) -> None:
    """ConflictError when a stated metadata.uid or resourceVersion is not the live object's."""
    for field in ("uid", "resourceVersion"):
        wanted = stated.get(field)
        found = live["metadata"][field] if live is not None else None
        if wanted is not None and wanted != found:
            raise ConflictError(
                "Conflict",
                f"{shown(ref)}: metadata.{field} is {found or 'not there'}, not {wanted}: read it again, then decide",
            )


def check_immutable(before: Object, after: Object, ref: Ref) -> None:
    """InvalidError when a field changed that must not."""
    for field in IMMUTABLE.get(ref.kind, ()):
        if before.get("spec", {}).get(field) != after.get("spec", {}).get(field):
            raise InvalidError("Invalid", f"{shown(ref)}: spec.{field}: field is immutable")
