"""Whose turn it is where builds are limited."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from enginewright_api.names import LABEL_BUILD_KEY, engine_build_name
from enginewright_operator.core.conditions import rfc3339
from enginewright_operator.core.settings import BuildLimits
from enginewright_operator.core.turns import Wait, line
from tests.unit.operator.snapshots import NOW

Object = dict[str, Any]


def key(number: int) -> str:
    return f"{number:02x}".ljust(64, "0")


def build(number: int, namespace: str = "team-a", *, age: float = 0.0, **status: Any) -> Object:
    created = rfc3339(NOW - timedelta(seconds=age))
    metadata = {
        "name": engine_build_name(key(number)), "namespace": namespace, "generation": 1, "creationTimestamp": created,
    }  # fmt: skip
    return {"metadata": metadata, "status": status}


def job(number: int, namespace: str = "team-a", *, ended: str = "") -> Object:
    conditions = [{"type": ended, "status": "True"}] if ended else []
    labels = {LABEL_BUILD_KEY: key(number)[:32]}
    return {"metadata": {"name": f"job-{number}", "namespace": namespace, "labels": labels},
            "status": {"conditions": conditions}}  # fmt: skip


def told(
    builds: list[Object], jobs: list[Object], most: int | None = None, per_namespace: int | None = None
) -> dict[tuple[str, int], int]:
    """Builds before each that is in the line, by namespace and number; 0 for one that may begin."""
    numbers = {engine_build_name(key(number)): number for number in range(100)}
    found = line(builds, jobs, BuildLimits(most_at_once=most, most_per_namespace=per_namespace), NOW)
    return {(namespace, numbers[name]): wait.before if wait else 0 for (namespace, name), wait in found.items()}


def test_the_oldest_begins_and_the_others_know_their_place() -> None:
    builds = [build(3, age=10), build(1, age=30), build(2, age=20)]
    assert told(builds, [], most=1) == {("team-a", 1): 0, ("team-a", 2): 1, ("team-a", 3): 2}
    assert told(builds, [job(1)], most=1) == {("team-a", 2): 1, ("team-a", 3): 2}
    assert told(builds, [job(1)], most=3) == {("team-a", 2): 0, ("team-a", 3): 0}


def test_a_job_that_has_ended_holds_no_place() -> None:
    for ended in ("Complete", "Failed", "FailureTarget"):
        assert told([build(2)], [job(1, ended=ended)], most=1) == {("team-a", 2): 0}


def test_namespaces_take_turns() -> None:
    many = [build(number, age=100 - number) for number in range(5)]
    found = told([*many, build(50, "team-b", age=1)], [], most=2)
    assert found["team-b", 50] == 0, "the youngest of all, and the first of its namespace"
    assert [found["team-a", number] for number in range(5)] == [0, 1, 2, 3, 4]
    assert told([*many, build(50, "team-b")], [job(90)], most=2)["team-b", 50] == 0


def test_a_full_namespace_keeps_no_other_waiting() -> None:
    many = [build(number, age=100 - number) for number in range(3)]
    found = told([*many, build(50, "team-b")], [], most=2, per_namespace=1)
    assert found == {("team-a", 0): 0, ("team-a", 1): 1, ("team-a", 2): 2, ("team-b", 50): 0}


def test_builds_that_are_over_or_pause_keep_nobody_waiting() -> None:
    over = build(1, age=50, phase="Succeeded", observedGeneration=1)
    asked_again = build(2, age=40, phase="Succeeded", observedGeneration=0)
    pausing = build(3, age=30, phase="Queued", retryAfter=rfc3339(NOW + timedelta(seconds=200)))
    rested = build(4, age=20, phase="Queued", retryAfter=rfc3339(NOW - timedelta(seconds=1)))
    wrong_clock = build(5, age=10, phase="Queued", retryAfter=rfc3339(NOW + timedelta(days=365)))
    found = told([over, asked_again, pausing, rested, wrong_clock], [], most=1)
    assert found == {("team-a", 2): 0, ("team-a", 4): 1, ("team-a", 5): 2}


def test_the_message_says_how_many_and_why_and_stays_while_the_line_is_long() -> None:
    builds = [build(number, age=100 - number) for number in range(30)]
    found = line(builds, [], BuildLimits(most_at_once=1), NOW)
    messages = [wait.message for wait in found.values() if wait is not None]
    assert messages[0] == "1 build comes before it: at most 1 at once in the cluster"
    assert messages[1] == "2 builds come before it: at most 1 at once in the cluster"
    assert set(messages[10:]) == {"more than 10 builds come before it: at most 1 at once in the cluster"}
    (wait,) = [one for one in line(builds[:2], [], BuildLimits(most_per_namespace=1), NOW).values() if one is not None]
    assert wait == Wait(1, "1 build comes before it: at most 1 at once in namespace team-a")
