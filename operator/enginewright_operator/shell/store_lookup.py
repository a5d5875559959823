"""Looks artifacts up in the store, in threads, remembering what was found: an artifact never changes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.manifest import Evidence, Manifest
from enginewright_api.outcome import ArtifactReference
from enginewright_store.artifact import artifact_uri, read_evidence, read_manifest
from enginewright_store.store import Store

from ..core.snapshot import Published

REMEMBERED = 1024


class ArtifactStoreLookup:
    """The real store behind `StoreLookup`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._manifests: OrderedDict[str, tuple[Manifest, str]] = OrderedDict()

    async def find(self, key: str, requests: Sequence[EvidenceRequest]) -> Published | None:
        """Artifact and all evidence for `requests`; what is not there is asked for again next time."""
        return await asyncio.to_thread(self._find, key, tuple(requests))

    def _find(self, key: str, requests: tuple[EvidenceRequest, ...]) -> Published | None:
        known = self._manifests.get(key) or read_manifest(self._store, key)
        if known is None:
            return None
        self._manifests[key] = known
        while len(self._manifests) > REMEMBERED:
            self._manifests.popitem(last=False)
        manifest, digest = known
        reference = ArtifactReference(uri=artifact_uri(self._store, key), digest=digest, size_bytes=manifest.size_bytes)
        evidence: list[Evidence] = [manifest.evidence]
        for request in requests:
            if request.digest != manifest.evidence.request_digest:
                found = read_evidence(self._store, key, request)
                evidence += [found] if found is not None else []
        return Published(reference, tuple(evidence))
