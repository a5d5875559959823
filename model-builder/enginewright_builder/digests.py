"""Digests of files and folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from enginewright_api.identity import digest_of


def file_digest(path: Path) -> str:
    """sha256 hex of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(folder: Path) -> str:
    """Digest of {path: sha256} of every file below a folder."""
    return digest_of(
        {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    )
