"""What the artifact store has, read in a thread so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from enginewright_api.errors import TransientError
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.manifest import Evidence
from enginewright_api.outcome import ArtifactReference
from enginewright_store.artifact import artifact_uri, read_evidence, read_manifest
from enginewright_store.store import Store

from ..core.snapshot import Published

LOOK_SECONDS = 10.0
"""A store that hangs must not hold the workers that other models wait for; the queue asks again, ever less often."""


class ArtifactStoreLookup:
    """The real store behind `StoreLookup`.

    Nothing is remembered: an artifact that was seen once may have been removed since, and the EngineBuild that asks is
    what keeps it from being removed only from now on. A build that is decided asks no more.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, key: str, requests: Sequence[EvidenceRequest]) -> Published | None:
        """Artifact and all evidence for `requests`; what is not there is asked for again next time."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await asyncio.to_thread(self._find, key, tuple(requests))
        except TimeoutError:
            message = f"{self._store.uri}: no answer about artifact {key[:16]} in {LOOK_SECONDS:g} s"
            raise TransientError("StoreUnavailable", message) from None

    def _find(self, key: str, requests: tuple[EvidenceRequest, ...]) -> Published | None:
        known = read_manifest(self._store, key)
        if known is None:
            return None
        manifest, digest = known
        reference = ArtifactReference(uri=artifact_uri(self._store, key), digest=digest, size_bytes=manifest.size_bytes)
        evidence: list[Evidence] = [manifest.evidence]
        for request in requests:
            if request.digest != manifest.evidence.request_digest:
                found = read_evidence(self._store, key, request)
                evidence += [found] if found is not None else []
        return Published(reference, tuple(evidence))
