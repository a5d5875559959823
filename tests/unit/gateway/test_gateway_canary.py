"""A canary's share of the requests, and what is counted of both versions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_api.metrics import CANARY_BUCKETS_SECONDS
from enginewright_api.recipe import Task
from enginewright_gateway.comparison import Attempt, Tally, count
from enginewright_gateway.errors import NotNowError, RefusedError
from enginewright_gateway.exchange import Exchange, finish
from enginewright_gateway.metrics import Metrics
from enginewright_gateway.pool import Lease, ModelPool, PoolLimits
from enginewright_gateway.pools import Pools
from enginewright_gateway.routes import Canary, Endpoint, RouteTable, ServedModel
from enginewright_gateway.service import EndpointFailedError, Fault, counted
from enginewright_gateway.watch import served_model
from tests.unit.gateway.test_gateway_routes import manifest

OLD = tuple(Endpoint(f"10.0.0.{n}", 8000, 8001) for n in (1, 2))
NEW = tuple(Endpoint(f"10.0.1.{n}", 8000, 8001) for n in (1, 2))
LIMITS = PoolLimits(inflight_batches=1, hold_seconds=0.2, max_held=2)


def canary(weight: int, window: str = "w", endpoints: tuple[Endpoint, ...] = NEW) -> Canary:
    """A canary with two servers."""
    return Canary("n/m-1a2b3c4d", weight, window, endpoints)


def model(weight: int, **changes: Any) -> ServedModel:
    """Two stable servers beside it; each takes 1000 requests at a time."""
    return replace(
        ServedModel(
            namespace="n", name="m", task=Task.EMBEDDING, max_batch_size=1000, max_queue_size=2,
            queue_timeout_seconds=5.0, endpoints=OLD, canary=canary(weight),
        ),
        **changes,
    )  # fmt: skip


def pool(served: ServedModel) -> ModelPool:
    """Limits of one batch at a server."""
    return ModelPool(served, LIMITS, lambda: 100.0)


async def taken(subject: ModelPool, requests: int) -> Counter[bool]:
    """How many of the requests went to the canary (True); none is given back."""
    return Counter([(await subject.acquire()).endpoint in NEW for _ in range(requests)])


@pytest.mark.parametrize("weight", [1, 5, 33, 50, 99, 100])
async def test_the_share_is_exact(weight: int) -> None:
    found = await taken(pool(model(weight)), 200)
    assert found[True] == 2 * weight


@given(st.integers(1, 100), st.integers(1, 150))
async def test_the_share_is_spread_evenly(weight: int, requests: int) -> None:
    found = await taken(pool(model(weight)), requests)
    assert abs(found[True] - requests * weight / 100) <= 1


async def test_each_version_gives_requests_to_its_idlest_server() -> None:
    subject = pool(model(50))
    found = Counter([(await subject.acquire()).endpoint for _ in range(8)])
    assert found == dict.fromkeys((*OLD, *NEW), 2)


async def test_a_busy_canary_leaves_its_turn_and_makes_up_for_one() -> None:
    subject = pool(model(50, max_batch_size=2, endpoints=OLD, canary=canary(50, endpoints=NEW[:1])))
    leases = [await subject.acquire() for _ in range(6)]
    assert Counter(lease.endpoint in NEW for lease in leases) == {True: 2, False: 4}
    for lease in leases:
        with lease:
            lease.answered()
    found = []
    for _ in range(6):
        with await subject.acquire() as lease:
            found.append(lease.endpoint in NEW)
    assert found == [True, True, False, True, False, True]


async def test_a_busy_stable_engine_does_not_flood_the_canary() -> None:
    subject = pool(model(10, max_batch_size=1, endpoints=OLD[:1]))
    first = await subject.acquire()
    assert first.endpoint in OLD
    with pytest.raises(NotNowError):
        await subject.acquire(within_seconds=0.01)


async def test_without_stable_servers_the_canary_answers() -> None:
    assert await taken(pool(model(5, endpoints=())), 20) == {True: 20}


async def test_without_canary_servers_the_stable_engine_answers() -> None:
    assert await taken(pool(model(50, canary=canary(50, endpoints=()))), 20) == {False: 20}


async def test_another_window_begins_at_zero_and_late_answers_count_in_their_own() -> None:
    subject = pool(model(100))
    lease = await subject.acquire()
    assert lease.tally is not None
    before = subject.comparison
    assert before is not None
    subject.update(model(100, canary=canary(100, "next")))
    assert subject.comparison is not None
    lease.tally.succeeded(0.1)
    assert (before.canary.requests, subject.comparison.canary.requests) == (1, 0)
    subject.update(model(0, canary=None))
    assert subject.comparison is None
    assert (await subject.acquire()).tally is None


def broken(code: grpc.StatusCode, details: str = "") -> grpc.aio.AioRpcError:
    """What a server refused with."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (EndpointFailedError("gone", Fault.BROKE_OFF), 1),
        (EndpointFailedError("gone", Fault.NO_CONNECTION), 1),
        (EndpointFailedError("full", Fault.BUSY), 0),
        (NotNowError(500, "ModelFailed", "it failed"), 1),
        (RefusedError(400, "RefusedByModel", "too long"), 0),
        (broken(grpc.StatusCode.INTERNAL), 1),
        (broken(grpc.StatusCode.INVALID_ARGUMENT), 0),
        (OSError("something else"), 1),
    ],
)
def test_only_the_servers_faults_count(error: Exception, failures: int) -> None:
    tally, exchange = Tally(), Exchange("http", "POST", "/", inference=True)
    with pytest.raises(type(error)), counted(exchange, tally, lambda: 0.0):
        raise error
    assert (tally.requests, tally.failures) == (failures, failures)
    assert exchange.attempts == []


@pytest.mark.parametrize(("code", "counted_as"), [("200", (1, 0)), ("500", (1, 1)), ("400", (0, 0)), ("499", (0, 0))])
def test_an_answer_counts_by_the_code_of_its_request(code: str, counted_as: tuple[int, int]) -> None:
    tally = Tally()
    exchange = Exchange("http", "POST", "/", model="n/m", inference=True)
    ticks = iter([1.0, 1.25])
    with counted(exchange, tally, lambda: next(ticks)):
        pass
    finish(exchange, Metrics(Pools(RouteTable(), LIMITS)), code, 3.0)
    assert (tally.requests, tally.failures) == counted_as
    assert tally.seconds == (0.25 if code == "200" else 0.0)


def test_of_several_answers_none_is_blamed() -> None:
    one, other = Tally(), Tally()
    count([Attempt(one, 0.1), Attempt(other, 0.1)], "502")
    assert (one.requests, other.requests) == (0, 0)


def test_metrics_tell_both_versions_of_the_window() -> None:
    table = RouteTable()
    pools = Pools(table, LIMITS, clock=lambda: 0.0)
    table.put_model(model(5, canary=canary(5, "1a2b3c4d-0-now")))
    comparison = pools.all()["n/m"].comparison
    assert comparison is not None
    comparison.canary.succeeded(0.1)
    comparison.canary.failed()
    comparison.stable.succeeded(1000.0)
    lines = Metrics(pools).text().decode().splitlines()
    labels = 'model="n/m",version="canary",window="1a2b3c4d-0-now"'
    assert f"enginewright_canary_requests_total{{{labels}}} 2.0" in lines
    assert f"enginewright_canary_failures_total{{{labels}}} 1.0" in lines
    buckets = [line for line in lines if line.startswith("enginewright_canary_request_seconds_bucket")]
    assert len(buckets) == 2 * (len(CANARY_BUCKETS_SECONDS) + 1)
    stable = [line for line in buckets if 'version="stable"' in line]
    assert [line.rpartition(" ")[2] for line in stable[-2:]] == ["0.0", "1.0"]


def rollout_status(**changes: Any) -> dict[str, Any]:
    """What the operator says of a canary."""
    return {
        "artifactDigest": "sha256:" + "1a2b3c4d" * 8, "specDigest": "x", "state": "Canary", "step": 1,
        "since": "2026-01-01T00:00:00Z", "weight": 20, **changes,
    }  # fmt: skip


def test_weight_and_service_come_from_the_status() -> None:
    found = served_model(manifest(status={"rollout": rollout_status()}))
    assert found.canary == Canary("search/words-1a2b3c4d", 20, "1a2b3c4d-1-2026-01-01T00:00:00Z")
    assert served_model(manifest(status={"rollout": rollout_status(weight=0)})).canary is None
    assert served_model(manifest()).canary is None


def test_endpoints_of_both_services_find_their_model() -> None:
    table = RouteTable()
    table.put_model(model(20, endpoints=(), canary=canary(20, endpoints=())))
    table.put_endpoints("n/m", OLD)
    table.put_endpoints("n/m-1a2b3c4d", NEW)
    found = table.get("n/m")
    assert found is not None
    assert found.canary is not None
    assert (found.endpoints, found.canary.endpoints) == (OLD, NEW)
    # While the canary takes over, the model's own Service selects its servers as well.
    table.put_endpoints("n/m", (*OLD, *NEW))
    assert table.get("n/m") == found
    table.put_model(replace(found, canary=None))
    after = table.get("n/m")
    assert after is not None
    assert after.endpoints == (*OLD, *NEW)
    table.put_endpoints("n/m-1a2b3c4d", ())
    assert table.get("n/m") == after


def test_a_lease_without_canary_counts_nowhere() -> None:
    assert Lease(pool(model(5, canary=None)), OLD[0]).tally is None
