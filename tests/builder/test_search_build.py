"""`enginewright build` searches a real model's recipe: candidates, shared stages, table, report, and a second run."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginewright_api.outcome import StageLine
from enginewright_cli.local.accelerators import detect_cpu
from tests.builder.building import PACKAGE

pytestmark = pytest.mark.timeout(900)

ENGINEWRIGHT = str(Path(sys.executable).with_name("enginewright"))


def model(**optimization: Any) -> dict[str, Any]:
    """MiniLM with few rows and small shapes, so that a build takes seconds."""
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "OptimizedModel",
        "metadata": {"name": "small"},
        "spec": {
            "source": {"package": {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE), "path": "model"}},
            "task": "Embedding",
            "optimization": {"quantization": {"calibration": {"samples": 16, "maxTokens": 32}}, **optimization},
            "engine": {"limits": {"maxBatchSize": 1, "maxInputTokens": 32}},
            "quality": {"samples": 32, "maxDrop": 0.05},
            "hardware": {"acceleratorClasses": ["cpu"]},
        },
    }


def run(folder: Path, *given: Any) -> subprocess.CompletedProcess[str]:
    """`given`: the objects of the file, then options."""
    spec, options = folder / "model.yaml", [item for item in given if isinstance(item, str)]
    spec.write_text(yaml.safe_dump_all(item for item in given if not isinstance(item, str)))
    return subprocess.run(
        [ENGINEWRIGHT, "build", "-f", str(spec), "--state-dir", str(folder / "state"), *options],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("search")
    done = run(folder, model(profile="Size", search={"maxBuilds": 2}), "--report", str(folder / "report.html"))
    assert done.returncode == 0, done.stderr
    return folder, done


def reports(output: str) -> list[StageLine]:
    return [StageLine.model_validate(json.loads(line)) for line in output.splitlines() if line.startswith("{")]


def test_candidates_are_built_in_turn_and_share_their_stages(
    searched: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = searched
    lines = done.stdout.splitlines()
    turns = [number for number, line in enumerate(lines) if re.match(r"search [12] of 2 builds, ", line)]
    assert len(turns) == 2
    first, second = "\n".join(lines[turns[0] : turns[1]]), "\n".join(lines[turns[1] :])
    published = [report for report in reports(first) if (report.name, report.state.value) == ("publish", "Succeeded")]
    assert len(published) == 1
    states = {report.name: report.state.value for report in reports(second)}
    assert (states["fetch"], states["baseline"], states["reference"]) == ("Cached", "Cached", "Cached")
    assert states["compile"] == "Succeeded"


def test_the_smallest_that_passes_is_chosen_and_why_the_other_lost(
    searched: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = searched
    table = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    rows = [line for line in table if re.search(r"\d\.\d\d×", line)]
    assert len(rows) == 2
    sizes = {line: float(re.findall(r"× +(\d+\.\d) ", line)[-1]) for line in rows}
    chosen = [line for line in rows if line.startswith("→")]
    assert len(chosen) == 1
    passing = [line for line in rows if " Passed " in line]
    assert sizes[chosen[0]] == min(sizes[line] for line in passing)
    other = next(line for line in rows if line not in chosen)
    assert re.search(r"is better|gate failed|not better", other)
    assert any("not tried: the budget of 2 builds is used up" in line for line in table)


def test_the_report_tells_of_both_and_fetches_nothing(
    searched: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = searched
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "An engine keeps the promise" in page
    assert page.count('<tr class="chosen"') == 1
    sizes = {float(size) for size in re.findall(r"<td>(\d+\.\d) MiB</td>", page)}
    printed = {float(re.findall(r"× +(\d+\.\d) ", line)[-1]) for line in done.stdout.splitlines() if "×  " in line}
    assert len(printed) == 2
    assert printed <= sizes, "every candidate's size"
    assert "Provenance" in page
    assert "Quantisation" in page
    assert "://" not in re.sub(r"file://[^<\"]*", "", page)


def test_a_second_search_finds_what_was_built(searched: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, first = searched
    done = run(folder, model(profile="Size", search={"maxBuilds": 2}), "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["artifact"]["digest"] in first.stdout
    assert '"Succeeded"' not in done.stderr, "no stage had to run"
    assert next(rung for rung in found["rungs"] if rung.get("verdict"))["message"]


def test_after_one_builder_has_told_the_sizes_no_other_one_is_asked(tmp_path: Path) -> None:
    small = detect_cpu()
    small["spec"]["memoryGiB"] = 0.25
    item = model(fallbacks=[{"quantization": {"format": "FP16"}}])
    item["spec"]["optimization"]["quantization"]["format"] = "INT8"
    done = run(tmp_path, small, item)
    assert done.returncode == 1
    assert [(line.name, line.state.value) for line in reports(done.stdout) if line.state.value != "Running"] == [
        ("fetch", "Succeeded"), ("fetch", "Succeeded"),
    ], "one builder fetched, and told the sizes"  # fmt: skip
    assert "INT8 SmoothQuant on OpenVINO: serving needs about 304 MiB" in done.stderr
    assert "FP16 on OpenVINO: serving needs about 356 MiB" in done.stderr
    assert "accelerator class cpu has 0.25 GiB; lower engine.limits" in done.stderr
