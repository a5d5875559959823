"""The agent's pure parts: what Deployments and Jobs need next, endpoints, environment, quantities, ports."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_cluster.agent.deployments import plan_deployment
from enginewright_cluster.agent.endpoints import slices_for
from enginewright_cluster.agent.environment import Mounts, decoded_secret, expanded
from enginewright_cluster.agent.jobs import plan_job
from enginewright_cluster.agent.pods import from_template, template_hash
from enginewright_cluster.agent.ports import PortAllocator, PortTakenError, port_map
from enginewright_cluster.agent.quantities import quantity
from enginewright_cluster.port import InvalidError, Object

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEMPLATE = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "new"}]}}
OLD = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "old"}]}}


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def deployment(replicas: int = 2, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"replicas": replicas, "template": TEMPLATE, **spec},
    }


def pod(number: int, *, old: bool = False, ready: bool = True, since: float = -100, leaving: bool = False) -> Object:
    mark = template_hash(OLD if old else TEMPLATE)
    metadata = {"name": f"p{number}", "namespace": "n", "uid": f"p{number}", "creationTimestamp": at(number)}
    status = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": at(since)}
    return {
        "metadata": metadata
        | {"labels": {"app": "d", "pod-template-hash": mark}}
        | ({"deletionTimestamp": at(0)} if leaving else {}),
        "spec": TEMPLATE["spec"],
        "status": {"phase": "Running", "conditions": [status]},
    }


def rolling(surge: int | str, unavailable: int | str) -> dict[str, Any]:
    return {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}


@pytest.mark.parametrize(
    ("spec", "pods", "create", "delete"),
    [
        ({}, [], 2, []),
        ({}, [pod(1), pod(2)], 0, []),
        ({}, [pod(1)], 1, []),
        ({}, [pod(1), pod(2), pod(3)], 0, ["p3"]),
        ({}, [pod(1), pod(2, ready=False), pod(3)], 0, ["p2"]),
        ({}, [pod(1), pod(2, leaving=True)], 1, []),
        (rolling(1, 0), [pod(1, old=True), pod(2, old=True)], 1, []),
        (rolling(1, 0), [pod(1, old=True), pod(2, old=True), pod(3, ready=False)], 0, []),
        (rolling(1, 0), [pod(1, old=True), pod(2, old=True), pod(3)], 0, ["p2"]),
        (rolling(0, 1), [pod(1, old=True), pod(2, old=True)], 0, ["p2"]),
        (rolling(0, 0), [pod(1, old=True), pod(2, old=True)], 0, ["p2"]),
        (rolling(1, 0), [pod(1, old=True), pod(2, old=True, ready=False)], 1, ["p2"]),
        (rolling("100%", "0%"), [pod(1, old=True), pod(2, old=True)], 2, []),
        ({"strategy": {"type": "Recreate"}}, [pod(1, old=True), pod(2, old=True)], 0, ["p1", "p2"]),
        ({"strategy": {"type": "Recreate"}}, [pod(1, old=True, leaving=True)], 0, []),
        ({"minReadySeconds": 50, **rolling(1, 0)}, [pod(1, old=True), pod(2, old=True), pod(3, since=-10)], 0, []),
        ({"minReadySeconds": 50, **rolling(1, 0)}, [pod(1, old=True), pod(2, old=True), pod(3, since=-60)], 0, ["p2"]),
    ],
)
def test_deployment_plans(spec: dict[str, Any], pods: list[Object], create: int, delete: list[str]) -> None:
    plan = plan_deployment(deployment(**spec), pods, NOW)
    assert plan.create == create
    assert sorted(item["metadata"]["name"] for item in plan.delete) == delete


def test_pods_with_fixed_ports_are_replaced_one_after_the_other() -> None:
    assert plan_deployment(deployment(1), [pod(1, old=True)], NOW, exclusive=True).create == 0
    assert len(plan_deployment(deployment(1), [pod(1, old=True)], NOW, exclusive=True).delete) == 1


@given(
    replicas=st.integers(1, 6),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    choices=st.lists(st.integers(0, 10**6), min_size=60, max_size=60),
)
def test_rolling_update_keeps_its_bounds_and_ends(
    replicas: int, surge: int, unavailable: int, choices: list[int]
) -> None:
    """Whatever order pods become ready in: never fewer available, never more in all, and done in the end."""
    item = deployment(replicas, **rolling(surge, unavailable))
    pods = [pod(number, old=True) for number in range(replicas)]
    allowed = 1 if surge == unavailable == 0 else unavailable
    number = replicas
    for choice in choices:
        plan = plan_deployment(item, pods, NOW)
        item["status"] = plan.status
        gone = {entry["metadata"]["name"] for entry in plan.delete}
        pods = [entry for entry in pods if entry["metadata"]["name"] not in gone]
        for _ in range(plan.create):
            number += 1
            pods.append(pod(number, ready=False))
        available = sum(entry["status"]["conditions"][0]["status"] == "True" for entry in pods)
        assert available >= replicas - max(allowed, 0)
        assert len(pods) <= replicas + surge
        waiting = [entry for entry in pods if entry["status"]["conditions"][0]["status"] == "False"]
        if waiting:
            entry = waiting[choice % len(waiting)]
            pods[pods.index(entry)] = pod(int(entry["metadata"]["name"][1:]))
    final = plan_deployment(item, pods, NOW)
    assert (final.create, final.delete) == (0, ())
    assert final.status["conditions"][1]["reason"] == "NewReplicaSetAvailable"


def test_deployment_status_settles() -> None:
    item = deployment()
    pods = [pod(1), pod(2, ready=False)]
    item["status"] = plan_deployment(item, pods, NOW).status
    later = NOW + timedelta(seconds=5)
    assert plan_deployment(item, pods, later).status == item["status"]
    assert plan_deployment(item, pods, later).again_seconds == pytest.approx(595, abs=1)


def job(**spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"template": {"spec": {"containers": []}}, **spec},
    }


def job_pod(phase: str, *, code: int = 1, finished: float = -100, condition: str | None = None) -> Object:
    ended = {"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": at(finished)}}}
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {
        "metadata": {"name": "x", "namespace": "n"},
        "status": {
            "phase": phase,
            "containerStatuses": [ended] if phase in ("Failed", "Succeeded") else [],
            "conditions": conditions,
        },
    }


IGNORE_DISRUPTION = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
FAIL_NOT_22 = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [22]}}]}


@pytest.mark.parametrize(
    ("spec", "pods", "create", "reason"),
    [
        ({}, [], 0, None),
        ({}, [job_pod("Running")], None, None),
        ({}, [job_pod("Succeeded", code=0)], None, "CompletionsReached"),
        ({"backoffLimit": 0}, [job_pod("Failed")], None, "BackoffLimitExceeded"),
        ({"backoffLimit": 1}, [job_pod("Failed")], 1, None),
        ({"backoffLimit": 1}, [job_pod("Failed", finished=0)], None, None),
        ({"backoffLimit": 1}, [job_pod("Failed"), job_pod("Failed")], None, "BackoffLimitExceeded"),
        ({"parallelism": 2}, [], None, "NotSupported"),
        ({"suspend": True}, [], None, None),
        (
            {"backoffLimit": 0, "podFailurePolicy": IGNORE_DISRUPTION},
            [job_pod("Failed", condition="DisruptionTarget")],
            1,
            None,
        ),
        ({"backoffLimit": 0, "podFailurePolicy": IGNORE_DISRUPTION}, [job_pod("Failed")], None, "BackoffLimitExceeded"),
        ({"podFailurePolicy": FAIL_NOT_22}, [job_pod("Failed", code=20)], None, "PodFailurePolicy"),
        ({"podFailurePolicy": FAIL_NOT_22}, [job_pod("Failed", code=22)], 1, None),
    ],
)
def test_job_plans(spec: dict[str, Any], pods: list[Object], create: int | None, reason: str | None) -> None:
    plan = plan_job(job(**spec), pods, NOW)
    assert plan.create == create
    assert [entry["reason"] for entry in plan.status.get("conditions", [])] == ([reason] if reason else [])


def test_deadline_is_looked_at_in_time() -> None:
    item = job(activeDeadlineSeconds=10)
    item["status"] = {"startTime": at(0)}
    running = [job_pod("Running")]
    assert plan_job(item, running, NOW + timedelta(seconds=4)).again_seconds == 6
    late = plan_job(item, running, NOW + timedelta(seconds=10))
    assert late.status["conditions"][0]["reason"] == "DeadlineExceeded"
    assert list(late.delete) == running


def test_finished_job_stays_as_it_is_until_its_time_is_over() -> None:
    item = job(ttlSecondsAfterFinished=60)
    item["status"] = plan_job(item, [job_pod("Succeeded", code=0)], NOW).status
    soon = plan_job(item, [], NOW + timedelta(seconds=20))
    assert (soon.status, soon.remove, soon.again_seconds) == (item["status"], False, 40)
    assert plan_job(item, [], NOW + timedelta(seconds=60)).remove


def test_pod_from_template_is_owned_and_bound() -> None:
    made = from_template(deployment(), "x", {"pod-template-hash": "h"})
    assert made["spec"]["nodeName"] == "local"
    assert made["metadata"]["labels"] == {"app": "d", "pod-template-hash": "h"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"


def service(**port: Any) -> Object:
    metadata = {"name": "s", "namespace": "n", "uid": "u"}
    return {"metadata": metadata, "spec": {"selector": {"app": "d"}, "ports": [{"name": "web", "port": 80, **port}]}}


@pytest.mark.parametrize(
    ("target", "expected"),
    [({"targetPort": "http"}, 20001), ({"targetPort": 8000}, 20001), ({"targetPort": 9}, 9), ({}, 80)],
)
def test_service_ports_lead_to_real_ones(target: dict[str, Any], expected: int) -> None:
    backend = copy.deepcopy(pod(1))
    backend["metadata"]["annotations"] = {"enginewright.io/local-ports": '{"http": 20001}'}
    backend["spec"] = {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000}]}]}
    (found,) = slices_for(service(**target), [backend])
    assert found["ports"] == [{"name": "web", "port": expected, "protocol": "TCP"}]


@pytest.mark.parametrize("backend", [pod(1, ready=False), pod(1, leaving=True)], ids=["not ready", "leaving"])
def test_only_ready_pods_are_endpoints(backend: Object) -> None:
    assert slices_for(service(targetPort=1), [backend]) == []
    assert len(slices_for(service(targetPort=1), [pod(1)])) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $(", "$A ${A} $("),
        ("", ""),
    ],
)
def test_references_follow_kubernetes_rules(text: str, expected: str) -> None:
    assert expanded(text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/models", "/real/models"),
        ("/models/a/b", "/real/models/a/b"),
        ("/models/", "/real/models/"),
        ("/modelsque", "/modelsque"),
        ("/models/deep/x", "/other/x"),
        ("file:///models/a", "file:///real/models/a"),
        ("s3://models/a", "s3://models/a"),
        ("--dir=/models/a", "--dir=/real/models/a"),
        ("--store=file:///models/a", "--store=file:///real/models/a"),
        ("note=/models/a", "note=/models/a"),
        ("models/a", "models/a"),
    ],
)
def test_paths_below_mounts_are_rewritten(text: str, expected: str) -> None:
    assert Mounts({"/models": "/real/models", "/models/deep": "/other"}).rewritten(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("4", 4), (2, 2), ("1Ki", 1024), ("1.5Gi", 1.5 * 2**30), ("2G", 2e9), ("8Ti", 8 * 2**40)],
)
def test_quantities(text: str | int, value: float) -> None:
    assert quantity(text, "f") == value


@pytest.mark.parametrize("text", ["lots", "", "Gi", "1 Gi"])
def test_wrong_quantities_name_the_field(text: str) -> None:
    with pytest.raises(InvalidError, match=r"limits\.memory"):
        quantity(text, "limits.memory")


def test_secret_that_is_not_base64_names_the_key() -> None:
    with pytest.raises(InvalidError, match=r"data\.token"):
        decoded_secret({"token": "***"}, None)


def test_ports_are_given_once_until_given_back() -> None:
    allocator = PortAllocator()
    first = allocator.allocate(["a", "b"], {})
    assert len(set(first.values())) == 2
    fixed = first["a"]
    with pytest.raises(PortTakenError, match=str(fixed)):
        allocator.allocate(["x"], {"x": fixed})
    allocator.release(first.values())
    assert allocator.allocate(["x"], {"x": fixed}) == {"x": fixed}


@pytest.mark.parametrize("text", ["8080", '["http"]', '{"http": "many"}', "{"])
def test_wrong_port_annotation_says_how_to_write_it(text: str) -> None:
    with pytest.raises(InvalidError, match="local-ports"):
        port_map(text)
