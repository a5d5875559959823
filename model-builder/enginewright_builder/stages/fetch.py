"""Fetch: the checkpoint, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.identity import digest_of
from enginewright_api.source import Source
from enginewright_builder.digests import tree_digest
from enginewright_builder.places import Places
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.sources.field import SOURCE, told_of
from enginewright_builder.sources.gguf_file import unpack
from enginewright_builder.sources.origins import origin_of

FETCH = "fetch"


@dataclass(frozen=True, slots=True)
class Fetch:
    """Source to checkpoint folder."""

    source: Source
    places: Places
    name: str = FETCH
    field: str = SOURCE
    """Of the spec, for what is said about it."""
    # What is fetched can be fetched again from where it is.
    shared: bool = False

    def key(self) -> str:
        """By the source's content, whatever it is fetched as."""
        with told_of(self.field):
            return digest_of({"stage": FETCH, "source": origin_of(self.source, self.places).key()})

    def run(self, into: Path) -> dict[str, Any]:
        """Result: sourceDigest, parameters. Raises DeterministicError for whatever cannot be built from."""
        with told_of(self.field):
            origin_of(self.source, self.places).fetch(into)
            unpack(into)
            checkpoint = inspect(into)
        return {
            "sourceDigest": tree_digest(into),
            "parameters": checkpoint.parameters,
            "message": f"{checkpoint.architecture}, {checkpoint.parameters / 1e6:.1f} M parameters",
        }
