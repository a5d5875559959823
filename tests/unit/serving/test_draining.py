"""Knowing when nothing is in flight."""

from __future__ import annotations

from pathlib import Path

from enginewright_serving.activity import Activity, busy, create
from enginewright_serving.draining import parse_waiting, wait_idle

METRICS = """# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="minilm",version="1"} 3
nv_inference_pending_request_count{model="minilm",version="2"} 4
nv_inference_pending_request_count{model="minilm-b",version="1"} 100
nv_inference_request_success{model="minilm",version="1"} 9
"""


def test_waiting_requests_are_those_of_the_model() -> None:
    assert parse_waiting(METRICS, "minilm") == 7
    assert parse_waiting(METRICS, "absent") == 0


def test_an_execution_shows_while_it_runs(tmp_path: Path) -> None:
    file = create(tmp_path / "working")
    activity = Activity(str(file))
    assert not busy(file)
    with activity:
        assert busy(file)
    assert not busy(file)
    with Activity(""):  # without `serve` around it
        pass


async def test_idle_means_idle_several_times_running() -> None:
    looks = iter([True, False, False, True, False, False, False, False])
    seen = 0

    async def in_flight() -> bool:
        nonlocal seen
        seen += 1
        return next(looks)

    assert await wait_idle(in_flight, 10.0)
    assert seen == 8


async def test_waiting_is_bounded() -> None:
    async def in_flight() -> bool:
        return True

    assert not await wait_idle(in_flight, 0.2)
