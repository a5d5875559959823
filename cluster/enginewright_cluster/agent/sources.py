"""ConfigMaps and Secrets that a pod's environment refers to, read before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..port import Object
from .environment import Source
from .volumes import Volumes

_REFERENCES = {
    "configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap", "secretRef": "Secret", "secretKeyRef": "Secret",
}  # fmt: skip


async def text_sources(volumes: Volumes, pod: Object) -> Source:
    """A look-up of their entries as text."""
    namespace = pod["metadata"]["namespace"]
    found: dict[tuple[str, str], dict[str, str] | None] = {}
    for kind, name in set(_referred(pod)):
        entries = await volumes.entries(kind, namespace, name)
        found[kind, name] = (
            {key: value.decode(errors="replace") for key, value in entries.items()} if entries is not None else None
        )
    return lambda kind, name: found.get((kind, name))


def _referred(pod: Object) -> Iterator[tuple[str, str]]:
    for container in [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]:
        for entry in container.get("envFrom") or ():
            yield from _of(entry)
        for variable in container.get("env") or ():
            yield from _of(variable.get("valueFrom") or {})


def _of(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, kind in _REFERENCES.items():
        if key in entry:
            yield kind, str(entry[key]["name"])
