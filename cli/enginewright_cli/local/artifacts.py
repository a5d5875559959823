"""Looking things up in the artifact store."""

from __future__ import annotations

from enginewright_api.errors import DeterministicError
from enginewright_api.manifest import Manifest
from enginewright_store import open_store
from enginewright_store.artifact import file_path, read_manifest


def lookup(store_uri: str, key: str) -> tuple[Manifest, str] | None:
    """Manifest and digest of the artifact with that key; None when there is none."""
    return read_manifest(open_store(store_uri), key)


def read_file(store_uri: str, key: str, path: str) -> bytes:
    """One file of an artifact, such as report.html."""
    store = open_store(store_uri)
    found = read_manifest(store, key)
    if found is not None:
        for file in found[0].files:
            if file.path == path:
                return store.read(file_path(key, file))
    raise DeterministicError("NotFound", f"{store_uri}: artifact {key[:16]} has no {path}")
