"""Retries by class of failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import Failure
from enginewright_operator.core.attempts import GIB, Course, GiveUp, Later, Start, Working, course
from enginewright_operator.core.conditions import rfc3339
from enginewright_operator.core.job_outcomes import JobView
from enginewright_operator.core.settings import BuildLimits
from tests.unit.operator.snapshots import NOW

LIMITS = BuildLimits(attempts=3, retry_seconds=10, retry_most_seconds=30, memory_gib=4, memory_most_gib=32)
Tries = list[tuple[JobView, str | None]]


def failed(*classes: FailureClass, ended_ago: float = 0.0, needs_gib: float | None = None) -> Tries:
    """Attempts that failed so."""
    found: Tries = []
    for number, failure_class in enumerate(classes, start=1):
        failure = Failure(
            failure_class=failure_class,
            reason="X",
            message="x",
            retryable=failure_class is not FailureClass.DETERMINISTIC,
            needs_memory_bytes=None if needs_gib is None else int(needs_gib * GIB),
        )
        found.append(
            (JobView(f"job-{number}", number, True, failure=failure), rfc3339(NOW - timedelta(seconds=ended_ago)))
        )
    return found


D, R, T = FailureClass.DETERMINISTIC, FailureClass.RESOURCE, FailureClass.TRANSIENT

TABLE: list[tuple[str, Tries, type[Course], dict[str, Any]]] = [
    ("first", [], Start, {"memory_gib": 4}),
    ("running", [(JobView("job-1", 1, False, running=True), None)], Working, {}),
    ("deterministic", failed(D, ended_ago=9999), GiveUp, {}),
    ("deterministic after transient", failed(T, D, ended_ago=9999), GiveUp, {}),
    ("transient, pause", failed(T), Later, {"seconds": 10}),
    ("transient, longer pause", failed(T, T), Later, {"seconds": 20}),
    ("transient, pause over", failed(T, ended_ago=10), Start, {"memory_gib": 4}),
    ("transient, used up", failed(T, T, T, ended_ago=9999), GiveUp, {}),
    ("memory", failed(R), Start, {"memory_gib": 8}),
    ("memory, measured", failed(R, needs_gib=10), Start, {"memory_gib": 12}),
    ("memory, twice", failed(R, R), GiveUp, {}),
    ("memory, too much", failed(R, needs_gib=33), GiveUp, {}),
    ("transient after memory keeps the memory", failed(R, T, ended_ago=9999), Start, {"memory_gib": 8}),
]


@pytest.mark.parametrize(("tries", "step", "fields"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_next_step(tries: Tries, step: type[Any], fields: dict[str, Any]) -> None:
    found = course(tries, LIMITS, NOW)
    assert isinstance(found, step)
    for name, value in fields.items():
        assert getattr(found, name) == pytest.approx(value)


def test_an_attempt_without_a_report_counts_as_transient() -> None:
    found = course([(JobView("job-1", 1, True), rfc3339(NOW))], LIMITS, NOW)
    assert isinstance(found, Later)
    assert found.because.reason == "OutcomeLost"


def test_no_more_memory_than_allowed_is_asked_for() -> None:
    found = course(failed(R, needs_gib=30), LIMITS, NOW)
    assert isinstance(found, Start)
    assert found.memory_gib == 32


@given(st.lists(st.sampled_from([R, T]), min_size=1, max_size=8), st.sampled_from([D]))
def test_after_a_deterministic_failure_nothing_is_started(before: list[FailureClass], last: FailureClass) -> None:
    assert isinstance(course(failed(*before, last, ended_ago=1e6), LIMITS, NOW), GiveUp)


@given(st.lists(st.sampled_from([D, R, T]), min_size=3, max_size=12))
def test_attempts_come_to_an_end(classes: list[FailureClass]) -> None:
    assert not isinstance(course(failed(*classes, ended_ago=1e6), LIMITS, NOW), Start) or classes.count(R) == 1
