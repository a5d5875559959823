"""`enginewright gc`: what objects name stays, in every namespace; what none does goes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enginewright_api.names import engine_build_name
from enginewright_cli.references import keys_in, used_keys
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.local import LocalCluster
from enginewright_cluster.port import DEPLOYMENT, ENGINE_BUILD, JOB, POD
from enginewright_store import open_store
from enginewright_store.artifact import read_manifest
from tests.scenarios.world import Moving, World
from tests.serving.artifacts import published

KEYS = [digit * 64 for digit in "abcd"]


def artifacts(folder: Path, *keys: str) -> None:
    engine = folder / "engine-folder"
    (engine / "engine").mkdir(parents=True, exist_ok=True)
    (engine / "engine" / "openvino.bin").write_bytes(b"weights")
    (engine / "engine.json").write_text(
        '{"task":"Embedding","backend":"OpenVINO","limits":{},"runtimePackage":"openvino","runtimeVersion":"1"}'
    )
    for key in keys:
        published(open_store((folder / "state" / "store").as_uri()), engine, key=key)


def gc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ENGINEWRIGHT_HOME": str(folder / "state")}
    command = [sys.executable, "-m", "enginewright_cli", "gc", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_removes_what_no_object_names(tmp_path: Path) -> None:
    """In local mode, with the objects of a control plane that is not running."""
    artifacts(tmp_path, *KEYS[:3])
    cluster = LocalCluster(tmp_path / "state")
    labelled = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "serving",
            "namespace": "elsewhere",
            "labels": {"enginewright.io/build-key": KEYS[0][:32], "app.kubernetes.io/managed-by": "enginewright"},
        },
        "spec": {"containers": [{"name": "server", "image": "local"}]},
    }
    asyncio.run(cluster.create(labelled))
    asyncio.run(cluster.close())
    arguments = ("--keep", "0", "--grace-hours", "0", "-o", "json")
    shown = json.loads(gc(tmp_path, *arguments, "--dry-run").stdout)
    verdicts = {row["key"]: row["verdict"] for row in shown["holdings"]}
    assert verdicts == {KEYS[0]: "Keep", KEYS[1]: "Remove", KEYS[2]: "Remove"}
    assert all(row["sizeBytes"] > 0 for row in shown["holdings"])
    assert shown["removed"] == []
    done = gc(tmp_path, *arguments)
    assert set(json.loads(done.stdout)["removed"]) == set(KEYS[1:3]), done.stderr
    store = open_store((tmp_path / "state" / "store").as_uri())
    assert [read_manifest(store, key) is not None for key in KEYS[:3]] == [True, False, False]


def test_the_defaults_keep_and_say_why(tmp_path: Path) -> None:
    artifacts(tmp_path, *KEYS)
    done = gc(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("among the newest 3 of its model") == 3
    assert "no object uses it; goes after" in done.stdout
    assert "0 of 4 removed" in done.stdout
    assert gc(tmp_path, "--context", "x").returncode == 2


async def test_each_object_of_a_served_model_names_its_build() -> None:
    """Any one of them is enough: whichever is deleted first, the artifact stays while the others live."""
    clock = Moving()
    world = World(FakeCluster(now=clock), clock=clock)
    await world.give_class()
    await world.apply()
    await world.settle()
    (build,) = await world.cluster.list(ENGINE_BUILD)
    key = build["spec"]["key"]
    assert await used_keys([world.cluster]) == {key[:16]}
    assert build["metadata"]["name"] == engine_build_name(key)
    model = await world.model()
    objects = [build, model]
    for kind in (JOB, DEPLOYMENT, POD):
        objects += await world.cluster.list(kind)
    assert {item["kind"] for item in objects} == {"EngineBuild", "OptimizedModel", "Job", "Deployment", "Pod"}
    for item in objects:
        assert key[:16] in {found[:16] for found in keys_in(item)}, item["kind"]


async def test_a_cluster_that_does_not_answer_is_no_empty_cluster() -> None:
    from enginewright_cluster.faults import Fault, Rule, Script
    from enginewright_cluster.port import UnavailableError

    silent = FakeCluster(faults=Script(Rule(Fault.UNAVAILABLE, verb="list", kind=DEPLOYMENT)))
    with pytest.raises(UnavailableError):
        await used_keys([FakeCluster(), silent])
