"""The library by which Flux and Helm wait."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from enginewright_cluster.port import Object
from tests.required import cannot_run

HERE = Path(__file__).parent
Kstatus = Callable[[Sequence[Object]], list[str]]
"""Objects to what kstatus makes of each."""


@pytest.fixture(scope="session")
def kstatus(tmp_path_factory: pytest.TempPathFactory) -> Kstatus:
    """The upstream library, in a program that reads objects."""
    program = tmp_path_factory.mktemp("kstatus") / "kstatus"
    settings = {
        "CGO_ENABLED": "0",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "PATH": f"{os.environ['PATH']}:/usr/local/go/bin",
    }
    settings["GOFLAGS"] = "-mod=readonly -trimpath -buildvcs=false"  # as tests/kube: what it compiled is found again
    command = ["go", "build", "-o", str(program), "."]
    try:
        built = subprocess.run(
            command, cwd=HERE / "kstatus", env=os.environ | settings, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        cannot_run("no Go: install 1.26 from https://go.dev/doc/install")
    assert built.returncode == 0, built.stderr

    def judge(objects: Sequence[Object]) -> list[str]:
        ran = subprocess.run([program], input=json.dumps(objects), capture_output=True, text=True, check=True)
        return [json.loads(line)["status"] for line in ran.stdout.splitlines()]

    return judge
