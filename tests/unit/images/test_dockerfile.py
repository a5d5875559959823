"""What images and setup install, by their text: nothing without a hash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("file", ["images/Dockerfile", "images/install", "images/install-wheel", "scripts/setup.sh"])
def test_nothing_is_installed_without_a_hash(file: str) -> None:
    text = re.sub(r"\\\n", " ", (ROOT / file).read_text())
    installs = re.findall(r"[^\n&|]*\bpip[\w.\"]* (?:install|sync)\b[^\n&|]*", text)
    assert installs or file == "images/install"
    for command in installs:
        ours = "--no-deps" in command and ("--editable ." in command or "/share/wheel/" in command)
        assert ours or "--require-hashes" in command, command


def test_the_installer_is_one_version_by_hash() -> None:
    text = (ROOT / "scripts" / "uv.txt").read_text()
    assert len(re.findall(r"^[\w-]+==", text, re.MULTILINE)) == 1
    assert re.search(r"^uv==[\d.]+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    for file in ("images/Dockerfile", "scripts/setup.sh"):
        assert not re.search(r"uv==\d|UV_VERSION", (ROOT / file).read_text()), f"{file}: the version stands in uv.txt"
