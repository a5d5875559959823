"""The examples are what they say: valid models, manifests that name what exists, a check that passes and refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginewright_api.validation import problems
from tests.chart.rendering import CHART

EXAMPLES = Path(__file__).parents[2] / "examples" / "gitops"
ROOT = EXAMPLES.parents[1]


def documents(name: str) -> list[dict[str, Any]]:
    """Objects of a file."""
    return [item for item in yaml.safe_load_all((EXAMPLES / name).read_text()) if item]


def test_the_models_are_valid() -> None:
    for name in documents("models/kustomization.yaml")[0]["resources"]:
        for item in documents(f"models/{name}"):
            assert problems(item) == []


@pytest.mark.parametrize("name", ["argocd/application-platform.yaml", "flux/platform.yaml"])
def test_the_charts_values_are_values_of_the_chart(name: str, helm: Path, tmp_path: Path) -> None:
    item = documents(name)[-1]
    source = item["spec"].get("source")
    values = source["helm"]["valuesObject"] if source else item["spec"]["values"]
    path = source["path"] if source else item["spec"]["chart"]["spec"]["chart"]
    assert (ROOT / path / "Chart.yaml").exists()
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    command = [str(helm), "template", "enginewright", str(ROOT / path), f"--values={tmp_path}/values.yaml"]
    done = subprocess.run([*command, "--kube-version=1.35.0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if source:
        assert "private.pem" not in done.stdout, "rendering alone must not make another key each time"


def test_models_come_after_the_platform_and_their_health_is_waited_for() -> None:
    waves = [
        int(documents(f"argocd/application-{name}.yaml")[0]["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for name in ("platform", "models")
    ]
    assert waves[0] < waves[1]
    _, kustomization = documents("flux/models.yaml")
    assert kustomization["spec"]["dependsOn"] == [{"name": "platform"}]
    (check,) = kustomization["spec"]["healthChecks"]
    (model,) = documents("models/minilm.yaml")
    assert (check["apiVersion"], check["kind"], check["name"]) == (model["apiVersion"], model["kind"], "minilm")
    ignored = documents("argocd/application-models.yaml")[0]["spec"]["ignoreDifferences"]
    crd = yaml.safe_load((CHART / "files" / "crds" / "optimizedmodels.enginewright.io.yaml").read_text())
    scaled = crd["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"]
    assert ignored[0]["jsonPointers"] == [scaled.replace(".", "/")]


def commands(models: Path, platform: Path) -> list[list[str]]:
    """The `enginewright` commands of the pull-request check, on these files, with no package but those it installs."""
    runs = [step.get("run", "") for step in documents("pull-request.yaml")[0]["jobs"]["check"]["steps"]]
    (installed,) = (found[1] for run in runs if (found := re.match(r'pip install "enginewright\[([a-z,]+)\]', run)))
    program = [sys.executable, "-m", "tests.gitops.installed", installed]
    lines = [run.removeprefix("enginewright ") for run in runs if run.startswith("enginewright ")]
    replaced = [line.replace('"$MODELS"', str(models)).replace("platform.yaml", str(platform)) for line in lines]
    return [program + line.split() for line in replaced]


def rendered(helm: Path, folder: Path) -> Path:
    """What the step of the check before those commands writes."""
    (run,) = (
        step["run"]
        for step in documents("pull-request.yaml")[0]["jobs"]["check"]["steps"]
        if "helm template" in step.get("run", "")
    )
    chosen = re.match(r"yq 'select\(\.kind == \"(\w+)\"\)\.spec\.values' examples/gitops/(\S+) >values\.yaml\n", run)
    assert chosen, run
    (release,) = (item for item in documents(chosen[2]) if item["kind"] == chosen[1])
    (folder / "values.yaml").write_text(yaml.safe_dump(release["spec"]["values"]))
    command = run[chosen.end() :].replace("values.yaml", str(folder / "values.yaml")).partition(" >")[0].split()
    command = [str(helm), *command[1:], "--kube-version=1.35.0"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    (folder / "platform.yaml").write_text(done.stdout)
    return folder / "platform.yaml"


def test_the_pull_request_check_passes_the_example_and_refuses_a_slip(helm: Path, tmp_path: Path) -> None:
    platform = rendered(helm, tmp_path)
    environment = os.environ | {"ENGINEWRIGHT_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
    good = EXAMPLES / "models" / "minilm.yaml"
    checks = commands(good, platform)
    assert [command[4] for command in checks] == ["validate", "plan", "render"]
    printed = [_run(command, environment) for command in checks]
    assert [status for status, _ in printed] == [0, 0, 0], printed
    assert "INT8" in printed[1][1]
    assert "kind: EngineBuild" in printed[2][1]
    assert "namespace: models" in printed[2][1]
    assert "s3://artifacts/engines" in printed[2][1]
    assert "image: local" not in printed[2][1]
    slip = tmp_path / "slip.yaml"
    slip.write_text(good.read_text().replace("maxDrop: 0.01", "maxDorp: 0.01").replace("[cpu]", "[cpuu]"))
    status, text = _run(commands(slip, platform)[0], environment)
    assert status != 0
    assert "maxDorp" in text
    slip.write_text(good.read_text().replace("[cpu]", "[nvidia-h100]"))
    status, text = _run(commands(slip, platform)[1], environment)
    assert status != 0
    assert "nvidia-h100" in text


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr
