"""The gateway's metrics, under the names of `enginewright_api.metrics`. The label `model` is `namespace/name`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from enginewright_api import metrics as names

from .comparison import Tally
from .pools import Pools

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _PoolGauges(Collector):
    """Reads the pools when scraped: a gauge that is computed cannot drift."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Queue depth, requests under way and held requests of every model, zeros included."""
        depth = GaugeMetricFamily(names.QUEUE_DEPTH, "Requests waiting in the gateway", labels=["model"])
        inflight = GaugeMetricFamily(names.INFLIGHT, "Requests sent to a server and not answered", labels=["model"])
        held = GaugeMetricFamily(names.HELD_REQUESTS, "Requests waiting for a first endpoint", labels=["model"])
        for model, pool in sorted(self._pools.all().items()):
            depth.add_metric([model], pool.waiting)
            inflight.add_metric([model], pool.inflight)
            held.add_metric([model], pool.held)
        yield from (depth, inflight, held)


class _Canaries(Collector):
    """Stable engine and canary of every model that has one, over the present window; read when scraped."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """Requests, failures and times by model, version and window."""
        labels = ["model", "version", "window"]
        requests = CounterMetricFamily(names.CANARY_REQUESTS_TOTAL, "Requests that a version ended", labels=labels)
        failures = CounterMetricFamily(names.CANARY_FAILURES_TOTAL, "Those of them that it failed", labels=labels)
        seconds = HistogramMetricFamily(
            names.CANARY_REQUEST_SECONDS, "From a server's choice to the end of its answer", labels=labels
        )
        for model, pool in sorted(self._pools.all().items()):
            if pool.comparison is None:
                continue
            for version, tally in pool.comparison.versions():
                values = [model, version, pool.comparison.window]
                requests.add_metric(values, tally.requests)
                failures.add_metric(values, tally.failures)
                seconds.add_metric(values, _cumulative(tally), sum_value=tally.seconds)
        yield from (requests, failures, seconds)


def _cumulative(tally: Tally) -> list[tuple[str, float]]:
    bounds = [*(repr(bound) for bound in names.CANARY_BUCKETS_SECONDS), "+Inf"]
    return list(zip(bounds, accumulate(tally.buckets), strict=True))


class Metrics:
    """Counters and histograms, in a registry of their own so that two gateways can live in one process."""

    def __init__(self, pools: Pools) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_PoolGauges(pools))
        self._registry.register(_Canaries(pools))
        self._requests = Counter(
            names.REQUESTS_TOTAL, "Inference requests answered", ["model", "code"], registry=self._registry
        )
        self._seconds = Histogram(
            names.REQUEST_SECONDS, "From the request's head to the end of the answer, successful inference only",
            ["model"], buckets=names.REQUEST_BUCKETS_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._tokens = Counter(names.TOKENS_TOTAL, "Tokens", ["model", "kind"], registry=self._registry)

        self._first_token = Histogram(
            names.TIME_TO_FIRST_TOKEN_SECONDS, "From the request's head to its first token, streamed or not",
            ["model"], buckets=names.FIRST_TOKEN_BUCKETS_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._inter_token = Histogram(
            names.INTER_TOKEN_SECONDS, "Between tokens of one answer",
            ["model"], buckets=names.INTER_TOKEN_BUCKETS_SECONDS, registry=self._registry,
        )  # fmt: skip

    def answered(self, model: str, code: str, seconds: float) -> None:
        """One inference request came to its end; `code` is an HTTP status, for gRPC the equivalent one."""
        self._requests.labels(model, code).inc()
        if code == "200":
            self._seconds.labels(model).observe(seconds)

    def prompt_tokens(self, model: str, count: int) -> None:
        """Tokens of the inputs, as the server counted them."""
        self._tokens.labels(model, "prompt").inc(count)

    def completion_tokens(self, model: str, count: int) -> None:
        """Tokens of the answers, as the server counted them."""
        self._tokens.labels(model, "completion").inc(count)

    def first_token(self, model: str, seconds: float) -> None:
        """The first token of a request came."""
        self._first_token.labels(model).observe(seconds)

    def more_tokens(self, model: str, count: int, seconds: float) -> None:
        """So many tokens of an answer came in the time since the last one."""
        for _ in range(count):
            self._inter_token.labels(model).observe(seconds / count)

    def text(self) -> bytes:
        """What /metrics answers."""
        return generate_latest(self._registry)
