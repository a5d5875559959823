"""Fetches one file so that it appears whole and checked, and goes on where a cut attempt ended."""

from __future__ import annotations

import hashlib
from pathlib import Path

from enginewright_api.errors import DeterministicError, ResourceError
from enginewright_store.medium import Medium

_CHUNK_BYTES = 16 * 2**20


def download(medium: Medium, path: str, local: Path, *, size: int, sha256: str) -> None:
    """Bytes of `path` into `local`, by way of `<local>.part`.

    A part left by an attempt that was cut is continued; when the whole then has the wrong digest it is fetched again
    from the start once, since the part may be the fault. Raises DeterministicError CorruptedArtifact when the stored
    content itself is not what was promised. One process at a time may write one `local`.
    """
    local.parent.mkdir(parents=True, exist_ok=True)
    part = local.with_name(local.name + ".part")
    resumed = part.exists() and part.stat().st_size > 0
    found = _fetch(medium, path, part, size)
    if found != sha256 and resumed:
        part.unlink()
        found = _fetch(medium, path, part, size)
    if found != sha256:
        part.unlink()
        raise DeterministicError(
            "CorruptedArtifact",
            f"{path}: sha256 is {found}, the manifest says {sha256}; publish the artifact again",
        )
    part.replace(local)


def _fetch(medium: Medium, path: str, part: Path, size: int) -> str:
    """Complete the part; hex digest of the whole."""
    digest = hashlib.sha256()
    try:
        with part.open("a+b") as file:
            if file.tell() > size:
                file.truncate(0)
            file.seek(0)
            done = 0
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
            while done < size:
                chunk = medium.read_range(path, done, min(done + _CHUNK_BYTES, size))
                if not chunk:
                    raise DeterministicError(
                        "CorruptedArtifact",
                        f"{path}: ends after {done} bytes, the manifest says {size}; publish the artifact again",
                    )
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
    except OSError as error:
        raise ResourceError("DiskFull", f"{part}: {error}; free some space or enlarge the volume") from error
    return digest.hexdigest()
