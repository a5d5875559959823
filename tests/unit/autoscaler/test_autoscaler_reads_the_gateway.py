"""The seam between two programs: what the gateway writes is what the autoscaler reads."""

from __future__ import annotations

import pytest

from enginewright_api.recipe import Task
from enginewright_autoscaler.exposition import parse
from enginewright_autoscaler.signals import Signals
from enginewright_gateway.metrics import Metrics
from enginewright_gateway.pool import PoolLimits
from enginewright_gateway.pools import Pools
from enginewright_gateway.routes import Endpoint, RouteTable, ServedModel

MODEL = ServedModel(
    namespace="default",
    name="minilm",
    task=Task.EMBEDDING,
    max_batch_size=8,
    max_queue_size=16,
    queue_timeout_seconds=10,
    endpoints=(Endpoint("127.0.0.1", 1, 2),),
)


async def test_the_gateways_metrics_are_understood() -> None:
    table, signals = RouteTable(), Signals()
    pools = Pools(table, PoolLimits(inflight_batches=2, hold_seconds=1, max_held=1))
    metrics = Metrics(pools)
    table.put_model(MODEL)
    table.put_endpoints("default/minilm", MODEL.endpoints)

    def scrape(at: float) -> None:
        signals.expect(["http://gateway"], at)
        signals.add("http://gateway", parse(metrics.text().decode()), at)

    scrape(0)
    idle = signals.traffic("default/minilm")
    assert idle.waiting is not None and idle.running is not None, "a model without requests has zeros, not nothing"
    assert (idle.waiting.value, idle.running.value) == (0, 0)
    lease = await pools.of(MODEL).acquire()
    for _ in range(20):
        metrics.answered("default/minilm", "200", 0.05)
        metrics.answered("default/minilm", "429", 0.0)
        metrics.prompt_tokens("default/minilm", 30)
    scrape(10)
    with lease:
        busy = signals.traffic("default/minilm")
    assert busy.running is not None and busy.running.value == 1
    assert busy.completions_per_second is not None
    assert busy.completions_per_second.value == pytest.approx(2)
    assert busy.prompt_tokens_per_second is not None
    assert busy.prompt_tokens_per_second.value == pytest.approx(60)
    assert busy.request_latency is not None
    assert busy.request_latency.count == 20
    assert busy.request_latency.share_within(0.08) == 1.0
