"""The Dockerfile by its text: labels, one Python, nothing installed without a hash."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = ("control", "serving", "builder")
OCI = "org.opencontainers.image."


def stages() -> dict[str, list[str]]:
    """Instructions of each stage, continued lines joined; what stands before the first one under ``."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines():
        start = re.fullmatch(r"FROM \S+ AS (\S+)", line)
        if start:
            name = start[1]
        found.setdefault(name, []).append(line)
    return found


def defaults() -> dict[str, str]:
    """Build arguments before the first stage."""
    return dict(re.findall(r"^ARG (\w+)=(\S*)$", "\n".join(stages()[""]), re.MULTILINE))


def labels(stage: str) -> dict[str, str]:
    words = [word for line in stages()[stage] if line.startswith("LABEL ") for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_says_what_it_is(image: str) -> None:
    found = labels(image)
    assert set(found) == {OCI + name for name in ("title", "description", "licenses", "version")}
    assert found[OCI + "licenses"] == PROJECT["license"]
    assert found[OCI + "version"] == "${VERSION}"
    assert "ARG VERSION" in stages()[image], (
        "an argument from before the first stage is unknown in one that does not ask"
    )
    assert "Enginewright" in found[OCI + "title"]
    assert len({labels(other)[OCI + "description"] for other in IMAGES}) == len(IMAGES)


def test_the_version_is_that_of_the_project() -> None:
    assert defaults()["VERSION"] == PROJECT["version"]


def test_nothing_in_the_labels_differs_from_build_to_build() -> None:
    assert not re.search(r"image\.(created|revision)|\$\(date", DOCKERFILE)


def test_kubernetes_probes_are_the_health_checks() -> None:
    assert "HEALTHCHECK" not in DOCKERFILE
    assert "HEALTHCHECK" in (ROOT / "images" / "README.md").read_text(), "and it is said why"


def test_the_python_is_named_once() -> None:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    assert re.findall(r".*\b3\.1\d\b.*", text) == [f"ARG PYTHON_VERSION={defaults()['PYTHON_VERSION']}"]
    for name in ("install", "install-wheel", "trim", "select_lock.py"):
        assert not re.search(r"3\.1\d", (ROOT / "images" / name).read_text()), name


def test_the_python_is_one_that_the_project_takes() -> None:
    lowest, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()  # type: ignore[union-attr]
    assert int(lowest) <= int(defaults()["PYTHON_VERSION"].removeprefix("3.")) < int(beyond)


def test_stages_that_use_an_argument_ask_for_it() -> None:
    for name, lines in stages().items():
        text = "\n".join(lines)
        for argument in defaults():
            used = f"${{{argument}}}" in text and name and not re.search(rf"^FROM \${{{argument}}}", text, re.MULTILINE)
            assert not used or f"ARG {argument}" in lines, f"{name}: {argument}"


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
