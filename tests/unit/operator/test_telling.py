"""Events come at once while the operator keeps up; while it does not, they hold up no visit."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from enginewright_api.errors import TransientError
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import EVENT, Object
from enginewright_operator.core.effects import Emit
from enginewright_operator.shell import telling
from enginewright_operator.shell.telling import Teller

MODEL: Object = {
    "apiVersion": "enginewright.io/v1alpha1",
    "kind": "OptimizedModel",
    "metadata": {"name": "search", "namespace": "default", "uid": "1"},
}


def emit(reason: str) -> Emit:
    return Emit(about=MODEL, type="Normal", reason=reason, message="as told", occasion=reason)


class Flaky(FakeCluster):
    """Loses the first Event it is given."""

    lost = 0

    async def create(self, manifest: Object, **rest: str) -> Object:
        """As the port's."""
        if not self.lost:
            self.lost = 1
            raise TransientError("ApiServerAway", "connection refused")
        return await super().create(manifest, **rest)


async def reasons(cluster: FakeCluster) -> set[str]:
    return {event["reason"] for event in await cluster.list(EVENT, namespace="default")}


def teller(cluster: FakeCluster, late: list[bool]) -> Teller:
    return Teller(cluster, lambda: datetime(2026, 1, 1, tzinfo=UTC), lambda: late[-1])


async def work(sender: Teller) -> None:
    """Long enough for all that waits."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await sender.run()


async def test_an_event_is_told_at_once() -> None:
    cluster = FakeCluster()
    await teller(cluster, [False]).tell(emit("Built"))
    assert await reasons(cluster) == {"Built"}


async def test_events_wait_while_visits_are_late() -> None:
    cluster = FakeCluster()
    late = [True]
    sender = teller(cluster, late)
    for reason in ("Accepted", "Built", "Built"):
        await sender.tell(emit(reason))
    await work(sender)
    assert await reasons(cluster) == set()
    late.append(False)
    await work(sender)
    assert await reasons(cluster) == {"Accepted", "Built"}


async def test_one_that_is_lost_does_not_hold_up_others() -> None:
    cluster = Flaky()
    late = [True]
    sender = teller(cluster, late)
    for reason in ("Accepted", "Built"):
        await sender.tell(emit(reason))
    late.append(False)
    await work(sender)
    assert await reasons(cluster) == {"Built"}


async def test_those_that_are_dropped_are_logged_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telling, "MOST_WAITING", 3)
    cluster = FakeCluster()
    late = [True]
    sender = teller(cluster, late)
    for number in range(8):
        await sender.tell(emit(f"Event{number}"))
    late.append(False)
    await work(sender)
    assert await reasons(cluster) == {"Event5", "Event6", "Event7"}
    (line,) = [record for record in caplog.records if "dropped" in record.message]
    assert line.__dict__["events"] == 5
