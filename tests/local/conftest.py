"""One control plane and one build for all tests of this folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.triton_process import missing
from tests.local.local_mode import LocalMode, eventually, free_port, is_alive
from tests.required import cannot_run

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "minilm" / "model.yaml"
KEPT = Path.home() / ".cache" / "enginewright" / "test-artifacts"
"""Finished engines with the key that signed them, so that a second run builds nothing. Delete it to build again."""
KEPT_SECONDS = 14 * 86_400.0
BUILD_SECONDS = 540.0


@pytest.fixture(scope="module")
def local() -> Iterator[LocalMode]:
    """A running control plane; at the end nothing of it may be left."""
    if reason := missing():
        cannot_run(reason)
    # A short path: sockets and the server's shared memory have names of limited length.
    home = Path(tempfile.mkdtemp(prefix="ew-", dir="/tmp"))
    mode = LocalMode(home, free_port(), free_port())
    try:
        mode.up()
        yield mode
        started = mode.processes()
        mode.run("down")
        eventually("everything stopped", lambda: not any(map(is_alive, started)), seconds=15)
    finally:
        mode.run("down", code=None)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def minilm(local: LocalMode) -> LocalMode:
    """With the example applied and ready: built here, unless an earlier run kept the engine."""
    kept = KEPT / _build_key(local)
    if kept.exists():
        local.run("down")
        for folder in ("keys", "store"):
            shutil.copytree(kept / folder, local.home / folder, dirs_exist_ok=True)
        local.up()
    local.run("apply", "-f", str(EXAMPLE))
    local.run("wait", "om/minilm", "--timeout", str(BUILD_SECONDS), seconds=BUILD_SECONDS + 30)
    if not kept.exists():
        _keep(local, kept)
    return local


def _build_key(local: LocalMode) -> str:
    """Of all rungs together: recipes, source and toolchain."""
    rungs = json.loads(local.run("plan", "-f", str(EXAMPLE), "-o", "json").stdout)
    return hashlib.sha256(json.dumps([rung["engineBuild"] for rung in rungs]).encode()).hexdigest()[:16]


def _keep(local: LocalMode, kept: Path) -> None:
    """Complete or not at all: written beside, then renamed."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for old in KEPT.iterdir():
        if old.stat().st_mtime < time.time() - KEPT_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=KEPT))
    for folder in ("keys", "store"):
        shutil.copytree(local.home / folder, partial / folder)
    try:
        partial.rename(kept)
    except OSError:  # another run was first
        shutil.rmtree(partial)
