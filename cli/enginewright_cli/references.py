"""Which builds the objects of a cluster name: what garbage collection must leave alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from enginewright_api.names import LABEL_BUILD_KEY
from enginewright_cluster.port import DEPLOYMENT, ENGINE_BUILD, JOB, OPTIMIZED_MODEL, POD, Cluster, Object
from enginewright_store.garbage.retention import REFERENCE_DIGITS

_OURS = {"app.kubernetes.io/managed-by": "enginewright"}
_BUILD_NAME = re.compile(r"eb-([0-9a-f]{16})")
_ARTIFACT_URI = re.compile(r".*/artifacts/([0-9a-f]{64})/?")


async def used_keys(clusters: Sequence[Cluster]) -> frozenset[str]:
    """First digits of every build key that an object of one of the clusters names, in whatever namespace.

    EngineBuilds come first: one that is deleted while we read is found in what it left, pods above all. Raises what
    the clusters raise: with one list missing nothing is known.
    """
    found = await asyncio.gather(*(_used(cluster) for cluster in clusters))
    return frozenset().union(*found)


async def _used(cluster: Cluster) -> frozenset[str]:
    keys: set[str] = set()
    for kind, labels in (
        (ENGINE_BUILD, None),
        (OPTIMIZED_MODEL, None),
        (JOB, _OURS),
        (DEPLOYMENT, _OURS),
        (POD, _OURS),
    ):
        for item in await cluster.list(kind, labels=labels):
            keys.update(key[:REFERENCE_DIGITS] for key in keys_in(item))
    return frozenset(keys)


def keys_in(item: Object) -> Iterator[str]:
    """Keys, or their first digits, that one object names: its own, by label, in status."""
    labels = item["metadata"].get("labels") or {}
    if LABEL_BUILD_KEY in labels:
        yield labels[LABEL_BUILD_KEY]
    if item.get("kind") == ENGINE_BUILD.kind:
        key = item.get("spec", {}).get("key")
        if isinstance(key, str):
            yield key
    yield from _in_texts(_texts(item.get("status", {})))


def _in_texts(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        match = _BUILD_NAME.fullmatch(text) or _ARTIFACT_URI.fullmatch(text)
        if match is not None:
            yield match[1]


def _texts(value: Any) -> Iterator[str]:
    """Every text of a status: whatever names a build counts, in fields of newer versions too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
