"""How long libraries were at work when several were at once."""

from __future__ import annotations

import pytest

from benchmarks.timed_build import Clock


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [
        ([], 0.0),
        ([(0.0, 2.0), (5.0, 6.0)], 3.0),
        ([(0.0, 4.0), (1.0, 2.0)], 4.0),
        ([(1.0, 3.0), (0.0, 2.0), (2.5, 5.0)], 5.0),
    ],
    ids=["nothing", "apart", "inside", "overlapping"],
)
def test_seconds_count_once(intervals: list[tuple[float, float]], seconds: float) -> None:
    clock = Clock()
    for number, (begun, ended) in enumerate(intervals):
        clock.add(f"library {number}", begun, ended)
    assert clock.union() == seconds
    assert sum(clock.parts().values()) == sum(ended - begun for begun, ended in intervals)
