"""Digest of a folder."""

from __future__ import annotations

from pathlib import Path

from enginewright_api.identity import digest_of
from enginewright_store.artifact import file_digest


def tree_digest(folder: Path) -> str:
    """Digest of {path: sha256} of every file below a folder."""
    return digest_of(
        {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    )
