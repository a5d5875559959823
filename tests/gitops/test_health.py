"""How GitOps tools judge our objects: Argo CD by the Lua check of the example, Flux and Helm by kstatus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginewright_cluster.port import Object
from tests.gitops.conftest import Kstatus
from tests.gitops.fixtures import HEALTH, health
from tests.gitops.life import life

REWRITE = "python -m tests.gitops.fixtures"
JUDGED = {
    # station: (Argo CD, kstatus)
    "new": ("Progressing", "InProgress"),
    "building": ("Progressing", "InProgress"),
    "ready": ("Healthy", "Current"),
    "changed": ("Progressing", "InProgress"),
    "deleting": ("Progressing", "Terminating"),
    "rolling-out": ("Progressing", "InProgress"),
    "class-unknown": ("Degraded", "Failed"),
    "build-failed": ("Degraded", "Failed"),
    "rollout-failed": ("Degraded", "Failed"),
    # kstatus has no word for what was stopped on purpose, nor for what serves with less than was asked for.
    "paused": ("Suspended", "Failed"),
    "metrics-stale": ("Degraded", "InProgress"),
    "enginebuild-failed": ("Degraded", "Failed"),
    "enginebuild-succeeded": ("Healthy", "Current"),
    "acceleratorclass-ready": ("Healthy", "Current"),
}


@pytest.fixture(scope="module")
def objects() -> dict[str, Object]:
    """The operator's own, at each station."""
    found = asyncio.run(life())
    assert found.keys() == JUDGED.keys()
    return found


@pytest.mark.parametrize("station", JUDGED)
def test_argo_cd(objects: dict[str, Object], station: str) -> None:
    found = health(objects[station])
    assert found["status"] == JUDGED[station][0]
    assert found["message"]


def test_kstatus(objects: dict[str, Object], kstatus: Kstatus) -> None:
    found = kstatus(list(objects.values()))
    assert dict(zip(objects, found, strict=True)) == {station: judged[1] for station, judged in JUDGED.items()}


def test_the_fixtures_are_what_the_operator_writes(objects: dict[str, Object]) -> None:
    """In what health is judged by; sentences may be put better without a change here."""
    listed = yaml.safe_load((HEALTH / "health_test.yaml").read_text())["tests"]
    assert {Path(test["inputPath"]).stem for test in listed} == objects.keys(), f"run: {REWRITE}"
    for test in listed:
        stored, path = yaml.safe_load((HEALTH / test["inputPath"]).read_text()), Path(test["inputPath"])
        assert health(stored) == test["healthStatus"], f"{path}: run: {REWRITE}"
        assert judged_by(stored) == judged_by(objects[path.stem]), f"{path}: run: {REWRITE}"


def judged_by(manifest: Object) -> dict[str, Any]:
    """Generation seen, and the conditions that sum up."""
    summary = {
        item["type"]: (item["status"], item["reason"])
        for item in manifest["status"].get("conditions", ())
        if item["type"] in ("Ready", "Reconciling", "Stalled")
    }
    return {"seen": manifest["status"]["observedGeneration"] == manifest["metadata"]["generation"], **summary}


def test_argo_cds_settings_hold_the_same_check() -> None:
    settings: dict[str, Any] = yaml.safe_load((HEALTH.parent / "argocd-cm.yaml").read_text())["data"]
    checks = {key: text for key, text in settings.items() if key.startswith("resource.customizations.health.")}
    kinds = {key.removeprefix("resource.customizations.health.enginewright.io_") for key in checks}
    assert kinds == {"OptimizedModel", "EngineBuild", "AcceleratorClass"}
    assert set(checks.values()) == {(HEALTH / "health.lua").read_text()}
