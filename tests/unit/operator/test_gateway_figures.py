"""Figures of canaries from gateways over HTTP: all parts or a part that is named as missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from enginewright_api.recipe import Task
from enginewright_cluster.fake import FakeCluster
from enginewright_gateway.metrics import Metrics
from enginewright_gateway.pool import PoolLimits
from enginewright_gateway.pools import Pools
from enginewright_gateway.routes import Canary, RouteTable, ServedModel
from enginewright_operator.shell.gateway_figures import GatewayFigures, versions_in

WINDOW = "1a2b3c4d-0-2026-01-01T00:00:00Z"


def metrics_text(window: str = WINDOW, *, canary: int = 3, failures: int = 1, stable: int = 7) -> str:
    """What a real gateway with a canary says; successful requests took 100 ms."""
    table = RouteTable()
    pools = Pools(table, PoolLimits(1, 1.0, 1))
    table.put_model(
        ServedModel(
            "n", "m", Task.EMBEDDING, max_batch_size=1, max_queue_size=1, queue_timeout_seconds=1.0,
            canary=Canary("n/m-1a2b3c4d", 5, window),
        )
    )  # fmt: skip
    comparison = pools.all()["n/m"].comparison
    assert comparison is not None
    for _ in range(canary):
        comparison.canary.succeeded(0.1)
    for _ in range(failures):
        comparison.canary.failed()
    for _ in range(stable):
        comparison.stable.succeeded(0.1)
    return Metrics(pools).text().decode()


@asynccontextmanager
async def gateway(answer: str, status: str = "200 OK") -> AsyncIterator[str]:
    """A server that answers everything so; its base URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = answer.encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_what_a_gateway_writes_is_what_the_operator_reads() -> None:
    found = versions_in(metrics_text(), "n/m", WINDOW)
    assert found is not None
    assert (found.canary.requests, found.canary.failures, found.canary.timed) == (4, 1, 3)
    assert (found.stable.requests, found.stable.failures, found.stable.timed) == (7, 0, 7)
    assert 0.09 < found.stable.p95_seconds() < 0.11


@pytest.mark.parametrize(("model", "window"), [("n/m", "another"), ("n/other", WINDOW)])
def test_another_window_or_model_is_unknown(model: str, window: str) -> None:
    assert versions_in(metrics_text(), model, window) is None


def test_other_buckets_are_refused() -> None:
    text = "\n".join(line for line in metrics_text().splitlines() if 'le="0.001"' not in line)
    with pytest.raises(ValueError, match="update the older"):
        versions_in(text, "n/m", WINDOW)


async def test_all_gateways_add_up() -> None:
    async with gateway(metrics_text()) as one, gateway(metrics_text(canary=10, failures=0)) as two:
        found = await GatewayFigures(FakeCluster(), (one, two)).find("n/m", WINDOW)
    assert found is not None
    assert (found.gateways, found.silent) == (2, ())
    assert (found.canary.requests, found.canary.failures, found.stable.requests) == (14, 1, 14)


async def test_a_gateway_that_fails_or_lags_behind_is_silent() -> None:
    async with gateway(metrics_text()) as one, gateway("", "500 No") as two, gateway(metrics_text("old")) as three:
        gateways = (one, two, three, "http://127.0.0.1:1", "http://127.0.0.1:bad")
        found = await GatewayFigures(FakeCluster(), gateways).find("n/m", WINDOW)
    assert found is not None
    assert found.gateways == 5
    assert set(found.silent) == {two, three, "http://127.0.0.1:1", "http://127.0.0.1:bad"}
    assert found.canary.requests == 4


async def test_gateways_are_found_by_their_service() -> None:
    cluster = FakeCluster()
    async with gateway(metrics_text()) as url:
        port = int(url.rpartition(":")[2])
        for name, ready in (("a", True), ("b", False)):
            await cluster.create(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {"name": name, "namespace": "s", "labels": {"kubernetes.io/service-name": "gateway"}},
                    "addressType": "IPv4",
                    "ports": [{"name": "http", "port": port if ready else 1}, {"name": "grpc", "port": 2}],
                    "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
                }
            )
        found = await GatewayFigures(cluster, ("s/gateway",)).find("n/m", WINDOW)
        assert found is not None
        assert (found.gateways, found.canary.requests) == (1, 4)
        assert await GatewayFigures(cluster, ("s/nobody",)).find("n/m", WINDOW) is None
    assert await GatewayFigures(cluster, ()).find("n/m", WINDOW) is None
