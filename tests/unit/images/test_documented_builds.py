"""Who types the commands of docs/installation.md gets the images that the end-to-end tests run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
NOT_CONTENT = {"BASE_IMAGE", "UV_CACHE", "VERSION"}
"""Arguments of images/build.sh that say where this machine keeps things, or what a label says."""


def test_the_documented_builds_take_the_arguments_of_build_sh() -> None:
    commands = _walkthrough_builds()
    assert commands, "docs/installation.md builds no image"
    for command in commands:
        assert dict(re.findall(r"--build-arg[ =]\"?(\w+)=([^\s\"]*)", command)) == _arguments_of_build_sh(), command


def test_the_packages_of_the_examples_are_in_the_groups_that_are_built_in() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    installed = {pin for group in _arguments_of_build_sh()["BUILDER_GROUPS"].split() for pin in groups[group]}
    sources = [
        document.get("spec", {}).get("source", {})
        for file in (ROOT / "examples").rglob("*.yaml")
        for document in yaml.safe_load_all(file.read_text())
        if document and document.get("kind") == "OptimizedModel"
    ]
    needed = {
        f"{source['package']['name']}=={source['package']['version']}" for source in sources if "package" in source
    }
    assert needed
    assert needed <= installed


def _walkthrough_builds() -> list[str]:
    page = (ROOT / "docs/installation.md").read_text()
    (block,) = re.findall(r"^## A cluster to try it.*?```sh\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    return re.findall(r"docker build .*", block.replace("\\\n", " "))


def _arguments_of_build_sh() -> dict[str, str]:
    """What the script passes where nobody says otherwise, less what the Dockerfile takes anyhow."""
    script = (ROOT / "images/build.sh").read_text()
    passed = set(re.findall(r"--build-arg \"?(\w+)=", script)) - NOT_CONTENT
    defaults = dict(re.findall(r"--build-arg \"(\w+)=\$\{\1-([^}]*)\}\"", script))
    assert passed == defaults.keys(), "an argument of another form: read it here too"
    taken = dict(re.findall(r"^ARG (\w+)=\"?([^\s\"]*)", (ROOT / "images/Dockerfile").read_text(), re.MULTILINE))
    return {name: value for name, value in defaults.items() if taken[name] != value}
