"""checkov over everything the chart installs: what it finds is mended, or argued here by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import Render
from tests.required import cannot_run

LOCK = Path(__file__).with_name("checkov.lock")
STRICT = (
    "--set=networkPolicy.enabled=true,modelNamespaces={models},gc.enabled=true",
    "--set=gateway.allowAnonymous=false,gateway.keysSecret=keys,images.pullSecrets={pull}",
    f"--set=images.control.digest=sha256:{'a' * 64}",
)
OURS = ("Deployment.system.release-enginewright-",)
GC = ("CronJob.system.release-enginewright-gc",)
TEST = ("Pod.system.release-enginewright-test",)

ARGUED: Mapping[tuple[str, tuple[str, ...]], str] = {
    (
        "CKV_K8S_11",
        OURS + GC + TEST,
    ): "CPU limits throttle bursts of programs that are idle mostly; requests share a node fairly.",
    ("CKV_K8S_38", OURS + GC): "These programs live on the API server. Builders and servers get no token.",
    ("CKV_K8S_8", TEST): "The pod of `helm test` runs to its end; nobody sends it requests.",
    ("CKV_K8S_9", TEST): "Likewise.",
}


@pytest.fixture(scope="session")
def checkov() -> Path:
    """checkov in an environment of its own: its dependencies and ours exclude one another."""
    uv = Path(sys.prefix) / "bin" / "uv"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "enginewright" / "checkov" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    done = folder / "complete"
    if not done.exists():
        if not uv.exists():
            cannot_run("no uv in this environment: run make setup")
        commands = [
            [str(uv), "venv", "--quiet", "--clear", f"--python={sys.executable}", str(folder)],
            [str(uv), "pip", "sync", "--quiet", "--require-hashes", f"--python={folder}/bin/python", str(LOCK)],
        ]
        for command in commands:
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode != 0:
                cannot_run(f"checkov cannot be installed here: {ran.stderr.strip()[-300:]}")
        done.touch()
    return folder / "bin" / "checkov"


def test_what_checkov_finds_is_mended_or_argued(checkov: Path, render: Render, tmp_path: Path) -> None:
    objects = [item for item in render(*STRICT) if item["kind"] != "CustomResourceDefinition"]
    (tmp_path / "chart.yaml").write_text(yaml.safe_dump_all(objects))
    command = [str(checkov), f"--file={tmp_path}/chart.yaml", "--framework=kubernetes", "--output=json", "--quiet"]
    # Nothing is asked of anybody's server.
    environment = os.environ | {"BC_SKIP_MAPPING": "TRUE"}
    ran = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, check=False, env=environment)
    report: dict[str, Any] = json.loads(ran.stdout)
    assert report["summary"]["passed"] > 300, ran.stderr
    assert report["summary"]["parsing_errors"] == 0
    found = {(item["check_id"], item["resource"]) for item in report["results"]["failed_checks"]}
    argued = {(check, start) for check, starts in ARGUED for start in starts}
    unargued = {
        item for item in found if not any(item[0] == check and item[1].startswith(start) for check, start in argued)
    }
    assert unargued == set()
    idle = {(check, start) for check, start in argued if not any(c == check and r.startswith(start) for c, r in found)}
    assert idle == set(), "an argument for what checkov no longer finds"
