"""Environments of toolchains whose versions exclude each other: one locked environment each, beside this one.

`default` is the environment the builder itself runs in. Every other toolchain is a lock file with hashes in
`enginewright_builder/toolchains/`. Images bring theirs ready, below ENGINEWRIGHT_TOOLCHAINS; on one machine uv makes
them on first use, below the user's cache folder, where the lock's digest is part of the name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import enginewright_api
import enginewright_builder
from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.identity import sha256_hex
from enginewright_builder.processes import Children

DEFAULT = "default"
VARIABLE = "ENGINEWRIGHT_TOOLCHAINS"
LOCKS = Path(__file__).parent.parent / "toolchains"
"""Lock files of all toolchains but the default one."""

_READY = ".ready"

Told = Callable[[float, str], None]


def lock_digest(name: str) -> str:
    """sha256 hex of a toolchain's lock file."""
    return sha256_hex(_lock_file(name).read_bytes())


def python_of(name: str, children: Children, told: Told) -> Path:
    """The interpreter of a toolchain, made first where it is not there yet.

    Raises DeterministicError ToolchainMissing where it cannot be made, TransientError ToolchainUnavailable when the
    packages cannot be fetched now.
    """
    if name == DEFAULT:
        return Path(sys.executable)
    lock = _lock_file(name)
    given = os.environ.get(VARIABLE)
    if given is not None:
        ready = Path(given) / name / "bin" / "python"
        if not ready.exists():
            raise DeterministicError(
                "ToolchainMissing",
                f"toolchain {name}: {ready} is not there; use a builder image made with TOOLCHAINS={name}",
            )
        return ready
    return locked_python(name, lock, children, told)


def locked_python(name: str, lock: Path, children: Children, told: Told) -> Path:
    """The interpreter of an environment with exactly what a lock file lists, made first where it is not there yet.

    Raises as `python_of` does.
    """
    folder = _cache() / f"{name}-{sha256_hex(lock.read_bytes())[:16]}"
    if not (folder / _READY).exists():
        _make(name, lock, folder, children, told)
    return folder / "bin" / "python"


def import_path(folder: Path) -> Path:
    """A folder that holds our packages and nothing else, for an interpreter whose site-packages lack them."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in (enginewright_api, enginewright_builder):
        (source,) = package.__path__
        link = folder / package.__name__
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return folder


def _lock_file(name: str) -> Path:
    lock = LOCKS / f"{name}.lock"
    if not lock.is_file():
        raise DeterministicError("ToolchainMissing", f"toolchain {name}: this builder has no lock file for it")
    return lock


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "enginewright" / "toolchains"


def _make(name: str, lock: Path, folder: Path, children: Children, told: Told) -> None:
    """One process makes it, others wait; what a killed process left is made again."""
    uv = _uv(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("wb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if (folder / _READY).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        told(0.0, f"installing toolchain {name} (once)")
        python = folder / "bin" / "python"
        _run(name, [uv, "venv", "--quiet", "--python", sys.executable, str(folder)], children)
        sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python)]
        _run(name, [*sync, str(lock)], children)
        (folder / _READY).touch()


def _uv(name: str) -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise DeterministicError(
            "ToolchainMissing",
            f"toolchain {name}: needs uv to install it (pip install uv), or a builder image with TOOLCHAINS={name}",
        )
    return found


def _run(name: str, command: list[str], children: Children) -> None:
    process = children.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, errors = process.communicate()
    if process.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise TransientError(
            "ToolchainUnavailable", f"toolchain {name} cannot be installed now: {last[0][:300]}; it is tried again"
        )
