"""One line for what keeps a pod from working."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enginewright_operator.core.pod_causes import cause_of, worst_cause
from tests.scenarios.kubelet import crashing_server, ready_server, refusing_admission


def container(state: dict[str, Any], *, ready: bool = False, last: dict[str, Any] | None = None) -> dict[str, Any]:
    """One container's status."""
    return {"name": "server", "ready": ready, "state": state, "lastState": last or {}}


CAUSES: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "out of memory",
        {"containerStatuses": [container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})]},
        "Resource",
        "OutOfMemory: container server was killed for memory",
    ),
    (
        "image",
        {"containerStatuses": [container({"waiting": {"reason": "ErrImagePull", "message": "no such image"}})]},
        "Transient",
        "ImagePullFailed: container server: no such image",
    ),
    (
        "configuration",
        {
            "containerStatuses": [
                container({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}})
            ]
        },
        "Transient",
        'CreateContainerConfigError: container server: secret "x" not found',
    ),
    ("evicted", {"phase": "Failed", "reason": "Evicted", "message": "disk"}, "Transient", "Evicted: disk"),
    (
        "no node",
        {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]},
        "Transient",
        "Unschedulable: 0/1 nodes",
    ),
    (
        "our own words",
        {
            "containerStatuses": [
                container(
                    {"waiting": {"reason": "CrashLoopBackOff"}},
                    last={
                        "terminated": {"exitCode": 22, "message": '{"reason": "StoreUnavailable", "message": "503"}'}
                    },
                )
            ]
        },
        "Transient",
        "StoreUnavailable: 503",
    ),
    (
        "deterministic by exit code",
        {
            "containerStatuses": [
                container({"terminated": {"exitCode": 20, "message": "UnsafeWeights: x.bin is a pickle"}})
            ]
        },
        "Deterministic",
        "UnsafeWeights: x.bin is a pickle",
    ),
    (
        "somebody else's words",
        {"containerStatuses": [container({"terminated": {"exitCode": 3, "reason": "Error", "message": "boom"}})]},
        "Transient",
        "Error: boom",
    ),
    (
        "nothing said",
        {"containerStatuses": [container({"terminated": {"exitCode": 3, "reason": "Error"}})]},
        "Transient",
        "Error: container server ended with exit code 3",
    ),
    (
        "not ready",
        {"phase": "Running", "containerStatuses": [container({"running": {}})]},
        "Transient",
        "NotReady: container server runs, but its readiness probe does not succeed yet",
    ),
]


@pytest.mark.parametrize(("status", "failure_class", "line"), [row[1:] for row in CAUSES], ids=[r[0] for r in CAUSES])
def test_root_cause(status: dict[str, Any], failure_class: str, line: str) -> None:
    cause = cause_of({"status": status})
    assert cause is not None
    assert (cause.failure_class.value, cause.line) == (failure_class, line)


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"phase": "Pending"},
        ready_server({}),
        {"containerStatuses": [container({"running": {}}, ready=True, last={"terminated": {"exitCode": 1}})]},
        {"initContainerStatuses": [container({"terminated": {"exitCode": 0}})]},
        {"containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}})]},
    ],
)
def test_no_cause_where_nothing_is_wrong(status: dict[str, Any]) -> None:
    assert cause_of({"status": status}) is None


def test_what_waiting_cannot_cure_is_told_first() -> None:
    crashing, refused = crashing_server({}), refusing_admission("DigestMismatch", "other bytes")({})
    cause = worst_cause([{"status": crashing}, {"status": refused}])
    assert cause is not None
    assert cause.reason == "DigestMismatch"


def test_a_builders_message_is_read_from_its_failure() -> None:
    text = json.dumps({"failure": {"reason": "DiskFull", "message": "no space"}})
    cause = cause_of({"status": {"containerStatuses": [container({"terminated": {"exitCode": 21, "message": text}})]}})
    assert cause is not None
    assert cause.line == "DiskFull: no space"
