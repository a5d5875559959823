"""The checker catches every fault that is planted, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.history_checker import Asked, Mark, Vector, separation, violations

TOLERANCE = 0.01


def vector(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


REFERENCES = {
    "A": {"hello": [vector(1, 0, 0), vector(1, 0.005, 0)], "bye": [vector(0, 1, 0)]},
    "B": {"hello": [vector(0.9, 0.1, 0)], "bye": [vector(0.1, 0.9, 0)]},
}
A, B = frozenset({"A"}), frozenset({"B"})
ROLLED = [Mark(0, A), Mark(10, A | B), Mark(20, B), Mark(30, A | B), Mark(40, A)]
"""From A to B and back."""


def asked(at: float, engine: str, *, text: str = "hello", seconds: float = 0.1, off: float = 0.0) -> Asked:
    answer = REFERENCES[engine][text][0] + np.float32(off)
    return Asked(at, at + seconds, text, answer)


def found(history: Sequence[Asked], marks: Sequence[Mark] = ROLLED) -> list[str]:
    return [each.kind for each in violations(history, marks, REFERENCES, tolerance=TOLERANCE)]


GOOD = [
    asked(1, "A"),
    asked(11, "A", text="bye"),
    asked(12, "B"),
    asked(25, "B", off=0.002),
    asked(31, "B"),
    asked(32, "A"),
    asked(45, "A", text="bye"),
]


def test_a_history_in_order_has_no_violation() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize("off", [0.03, -0.5, float("nan"), float("inf")])
def test_a_wrong_answer_is_caught(off: float) -> None:
    assert found([*GOOD, asked(5, "A", off=off)]) == ["wrong answer"]


def test_an_answer_to_another_text_is_wrong() -> None:
    assert found([replace(asked(5, "A", text="bye"), text="hello")]) == ["wrong answer"]


def test_an_answer_of_another_shape_is_wrong() -> None:
    assert found([replace(asked(5, "A"), vector=vector(1, 0))]) == ["wrong answer"]


@pytest.mark.parametrize(
    ("at", "engine"), [(5, "B"), (20.5, "A"), (41, "B")], ids=["too early", "after promotion", "after rollback"]
)
def test_a_stale_engine_is_caught(at: float, engine: str) -> None:
    assert found([*GOOD, asked(at, engine)]) == ["stale engine"]


def test_a_request_that_began_before_the_change_was_complete_may_end_after_it() -> None:
    assert found([asked(19, "A", seconds=5), asked(39.9, "B", seconds=3)]) == []


def test_a_forbidden_failure_is_caught() -> None:
    failed = Asked(12, 12.1, "hello", failure="503")
    assert found([*GOOD, failed]) == ["forbidden failure"]


def test_a_failure_is_allowed_only_in_its_time_and_of_its_kind() -> None:
    marks = [Mark(0, A), Mark(10, A, frozenset({"ConnectError"})), Mark(20, A)]
    during = Asked(12, 12.1, "hello", failure="ConnectError")
    assert found([during], marks) == []
    assert found([replace(during, failure="500")], marks) == ["forbidden failure"]
    assert found([Asked(21, 21.1, "hello", failure="ConnectError")], marks) == ["forbidden failure"]
    assert found([Asked(8, 9, "hello", failure="ConnectError")], marks) == ["forbidden failure"]
    assert found([Asked(8, 11, "hello", failure="ConnectError")], marks) == [], "it was under way"


def test_a_request_that_nobody_answered_is_caught() -> None:
    assert found([Asked(1, 2, "hello")]) == ["no answer"]


def test_what_it_could_not_tell_apart_it_does_not_judge() -> None:
    assert separation(REFERENCES) == pytest.approx(0.1, abs=0.01)
    with pytest.raises(ValueError, match="does not tell engines"):
        violations(GOOD, ROLLED, REFERENCES, tolerance=0.06)
    with pytest.raises(ValueError, match="in the order"):
        violations(GOOD, [Mark(5, A), Mark(5, B)], REFERENCES, tolerance=TOLERANCE)
    with pytest.raises(ValueError, match="at least one"):
        violations(GOOD, [], REFERENCES, tolerance=TOLERANCE)


@given(
    at=st.floats(0, 50, exclude_min=True).filter(lambda at: all(abs(at - mark.at) > 0.01 for mark in ROLLED)),
    engine=st.sampled_from(["A", "B"]),
)
def test_an_instant_request_is_judged_by_the_mark_in_force(at: float, engine: str) -> None:
    allowed = [mark for mark in ROLLED if mark.at <= at][-1].engines
    assert found([asked(at, engine, seconds=0)]) == ([] if engine in allowed else ["stale engine"])
