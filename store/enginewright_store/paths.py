"""Paths inside a store: relative, normalised, never leading out of it."""

from __future__ import annotations

from enginewright_api.errors import DeterministicError

MAX_PATH_BYTES = 1024
"""S3's limit for a key."""


def checked(path: str) -> str:
    """The path itself when it is safe. DeterministicError otherwise."""
    parts = path.split("/")
    unsafe = (
        not path
        or len(path.encode()) > MAX_PATH_BYTES
        or "\\" in path
        or any(ord(character) < 32 for character in path)
        or any(part in ("", ".", "..") for part in parts)
    )
    if unsafe:
        raise DeterministicError(
            "UnsafePath",
            f"store path {path[:200]!r}: must be relative, at most {MAX_PATH_BYTES} bytes, without '.', '..', empty"
            " parts, backslashes or control characters",
        )
    return path


def checked_prefix(prefix: str) -> str:
    """Like `checked`; the empty prefix means the whole store."""
    return checked(prefix.rstrip("/")) if prefix.rstrip("/") else ""
