"""The CRDs on a real API server: every rule, with its message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.crd import write
from enginewright_api.validation import with_defaults
from tests.objects.table import (
    DEFAULTED_NULLS,
    IMMUTABLE,
    NULLS,
    RIGHT,
    UNKNOWN_FIELDS,
    WRONG,
    Object,
    Wrong,
    build,
    model,
)


@pytest.fixture(scope="module")
def server(kube_crds: Any) -> Any:
    with kube_crds.namespace() as namespace:
        yield kube_crds, namespace


def _apply(server: Any, item: Object, *flags: str) -> Any:
    cluster, namespace = server
    return cluster.kubectl("create", "-n", namespace, "-f", "-", *flags, stdin=json.dumps(item), check=False)


@pytest.mark.parametrize("wrong", WRONG + UNKNOWN_FIELDS, ids=lambda wrong: wrong.id)
def test_wrong_objects_are_refused_naming_the_field(server: Any, wrong: Wrong) -> None:
    result = _apply(server, wrong.object, "--dry-run=server")
    assert result.returncode != 0
    for word in wrong.says:
        assert word in result.stderr


@pytest.mark.parametrize("right", RIGHT, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_right_objects_are_admitted(server: Any, right: Object) -> None:
    result = _apply(server, right, "--dry-run=server")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("wrong", IMMUTABLE, ids=lambda wrong: wrong.id)
def test_engine_builds_are_immutable(server: Any, wrong: Wrong) -> None:
    cluster, namespace = server
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(build()))
    result = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(wrong.object), check=False)
    assert result.returncode != 0
    for word in wrong.says:
        assert word in result.stderr


def test_server_fills_the_same_defaults_as_we_do(server: Any) -> None:
    cluster, namespace = server
    item = model("defaults", optimization={"quantization": {}}, scaling={"maxReplicas": 3})
    _apply(server, item)
    stored = json.loads(cluster.kubectl("get", "om", "defaults", "-n", namespace, "-o", "json").stdout)
    assert stored["spec"] == with_defaults(item)["spec"]


@pytest.mark.parametrize("wrong", NULLS, ids=lambda wrong: wrong.id)
def test_server_side_apply_refuses_nulls_without_a_default(server: Any, wrong: Wrong) -> None:
    result = _server_side_apply(server, wrong.object)
    assert result.returncode != 0
    for word in wrong.says:
        assert word in result.stderr


@pytest.mark.parametrize("item", DEFAULTED_NULLS, ids=lambda item: str(item["metadata"]["name"]))
def test_nulls_with_a_default_stand_for_it(server: Any, item: Object) -> None:
    for result in (_apply(server, item, "--dry-run=server", "-o", "json"), _server_side_apply(server, item)):
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["spec"] == with_defaults(item)["spec"]


def _server_side_apply(server: Any, item: Object) -> Any:
    cluster, namespace = server
    flags = ("--server-side", "--dry-run=server", "-o", "json")
    return cluster.kubectl("apply", "-n", namespace, "-f", "-", *flags, stdin=json.dumps(item), check=False)


def test_fresh_object_does_not_look_finished_to_kstatus(server: Any) -> None:
    cluster, namespace = server
    _apply(server, model("fresh"))
    stored = json.loads(cluster.kubectl("get", "om", "fresh", "-n", namespace, "-o", "json").stdout)
    assert stored["status"]["observedGeneration"] == -1


def test_scale_subresource_and_columns(server: Any) -> None:
    cluster, namespace = server
    _apply(server, model("scaled"))
    cluster.kubectl("scale", "om/scaled", "-n", namespace, "--replicas=3")
    stored = json.loads(cluster.kubectl("get", "om", "scaled", "-n", namespace, "-o", "json").stdout)
    assert stored["spec"]["replicas"] == 3
    header = cluster.kubectl("get", "om", "-n", namespace).stdout.splitlines()[0].split()
    assert header == ["NAME", "READY", "BACKEND", "FORMAT", "REPLICAS", "REASON", "AGE"]
    assert "scaled" in cluster.kubectl("get", "enginewright", "-n", namespace).stdout


def test_checked_in_files_are_current(tmp_path: Path) -> None:
    """Needs no server; it stands here because the files are what the server is given."""
    folder = Path(__file__).parents[2] / "crds"
    for path in write(tmp_path):
        assert (folder / path.name).read_text() == path.read_text(), "run `make generate`"
