"""The soak's figures: a leak shows, a process that settles does not."""

from __future__ import annotations

import math

import pytest

from benchmarks.operator_soak import growth

READINGS = 900


def test_a_leak_shows_in_both_figures() -> None:
    found = growth([(5 * second, 100.0 + 0.01 * second) for second in range(READINGS)])
    assert found["rss_growth"] == pytest.approx(0.01 * 0.8 * READINGS / 101.35, rel=0.01)
    assert found["rss_kb_an_act"] == pytest.approx(1000 * 0.01 / 5)


def test_what_settles_is_flat() -> None:
    found = growth([(5 * second, 110.0 - 10 * math.exp(-second / 20)) for second in range(READINGS)])
    assert abs(found["rss_growth"]) < 0.005
    assert abs(found["rss_kb_an_act"]) < 0.001
