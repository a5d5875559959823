"""The soak's figures: a leak shows, a process that settles does not, and the benchmark makes no peak of its own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.operator_soak import Rest, Soak, Users, growth

READINGS = 900
ACTS = (450, 2250, 4500)


def found(megabytes: Callable[[float], float], blocks_an_act: float = 0.0) -> dict[str, float]:
    """Figures of 900 seconds of five acts each, by the size after so many seconds."""
    rests = [Rest(acts, megabytes(acts / 5), int(600_000 + blocks_an_act * acts)) for acts in ACTS]
    return growth(rests, [(5 * second, megabytes(second)) for second in range(READINGS)])


def test_a_leak_shows_in_all_figures() -> None:
    leaking = found(lambda second: 100.0 + 0.01 * second, blocks_an_act=2.0)
    assert leaking["rss_growth"] == pytest.approx(0.01 * 0.5 * READINGS / 104.5, rel=0.01)
    assert leaking["rss_kb_an_act"] == pytest.approx(1000 * 0.01 / 5)
    assert leaking["live_growth_a_day"] == pytest.approx(2.0 * 86_400 / 604_500, rel=0.01)


def test_what_settles_is_flat() -> None:
    settling = found(lambda second: 110.0 - 10 * math.exp(-second / 20))
    assert abs(settling["rss_growth"]) < 0.005
    assert abs(settling["rss_kb_an_act"]) < 0.001
    assert settling["live_growth_a_day"] == 0.0


class Server:
    """Takes what users write, and notes when."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.specs: dict[str, Any] = {}

    async def apply(self, manifest: dict[str, Any], *, field_manager: str) -> None:
        self.times.append(time.monotonic())
        self.specs[manifest["metadata"]["name"]] = manifest["spec"]

    async def delete(self, ref: Any) -> None:
        self.times.append(time.monotonic())
        del self.specs[ref.name]


class Quiet:
    """A process of a size."""

    rss_megabytes = 100.0

    def ask(self) -> Quiet:
        return self

    async def until_quiet(self, models: int, seconds: float) -> Quiet:
        return self

    def live_blocks(self) -> int:
        return 600_000


def test_models_are_made_as_at_first_at_the_rate_of_the_acts() -> None:
    server, rate, models = Server(), 200.0, 20
    soak = Soak(Users(server, models, 0), Quiet(), models, rate)  # type: ignore[arg-type]  # stand for both

    async def run() -> list[Rest]:
        return [await soak.rest_after(acts) for acts in (0, 30)]

    begun = time.monotonic()
    first, second = asyncio.run(run())
    assert (first.acts, second.acts, len(server.times)) == (0, 30, 2 * models + 30)
    assert {
        str(spec["batching"]) + str(spec["engine"]["limits"]["maxBatchSize"]) for spec in server.specs.values()
    } == {"{'maxQueueDelayMicroseconds': 0}8"}
    ends = (begun, server.times[models - 1]), (server.times[models + 29], server.times[-1])
    assert all(after - before >= (models - 1) / rate for before, after in ends), "not all at once"
