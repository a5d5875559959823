"""Weights in a repository on a Hugging Face hub, at a commit."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.identity import digest_of
from enginewright_api.source import HuggingFaceSource
from enginewright_builder.places import Places
from enginewright_builder.sources.checkpoint import CONFIG, check_source_names, read_config
from enginewright_builder.sources.hub_access import HubAccess

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.gguf"]


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """Repository and commit."""

    source: HuggingFaceSource
    places: Places

    def key(self) -> str:
        """A commit does not change. The token is no part of it."""
        self._access().check_revision()
        return digest_of({"hub": [self.source.repository, self.source.revision]})

    def fetch(self, into: Path) -> None:
        """Raises DeterministicError (not found, access denied) or TransientError (rate limited, unavailable)."""
        access = self._access()
        check_source_names(access.names(), where=self.source.repository)
        access.download(_PATTERNS, into)

    def config(self) -> dict[str, Any]:
        """One small download."""
        with tempfile.TemporaryDirectory(prefix="enginewright-config-") as folder:
            self._access().download([CONFIG], Path(folder))
            return read_config(Path(folder))

    def _access(self) -> HubAccess:
        return HubAccess(self.source, self.places, "model", "source.huggingFace")
