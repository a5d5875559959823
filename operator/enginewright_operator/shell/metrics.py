"""Prometheus metrics of the operator. The alerts and the dashboard of the chart are made of these names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from enginewright_api.errors import EnginewrightError

from .inventory import Inventory

if TYPE_CHECKING:
    # Without Kubernetes its client need not be loaded.
    from enginewright_cluster.kubernetes_connection import Call

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SAMPLE_SECONDS = 0.25


class Metrics:
    """Metrics of one operator, in a registry of their own so that tests and local mode can have several."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.inventory = Inventory()
        registry.register(self.inventory)
        ProcessCollector(registry=registry)
        self._visits = Histogram(
            "enginewright_operator_reconcile_seconds", "Time of one visit.", ["kind"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "enginewright_operator_reconcile_errors",
            "Visits that failed; class: what helps, or Unexpected for an error that nobody raises on purpose.",
            ["kind", "class", "error"],
            registry=registry,
        )
        self._effects = Counter(
            "enginewright_operator_effects", "Writes to the cluster.", ["effect"], registry=registry
        )
        self._depth = Gauge("enginewright_operator_queue_depth", "Keys that wait, due or not.", registry=registry)
        self._oldest = Gauge(
            "enginewright_operator_queue_oldest_seconds", "Since when the oldest key is due.", registry=registry
        )
        self._late = Histogram(
            "enginewright_operator_queue_seconds", "From when a visit was due to its begin.", ["kind"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._calls = Counter(
            "enginewright_operator_api_requests", "Requests to the API server; code 0: no answer.",
            ["verb", "resource", "code"], registry=registry,
        )  # fmt: skip
        self._call_seconds = Histogram(
            "enginewright_operator_api_request_seconds", "Time of a request; of a watch, until it opened.",
            ["verb", "resource"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._throttled = Counter(
            "enginewright_operator_api_wait_seconds", "Time that requests waited for their turn (--api-qps).",
            registry=registry,
        )  # fmt: skip
        self._leading = Gauge("enginewright_operator_leading", "1 while this replica works.", registry=registry)
        self._lag = Histogram(
            "enginewright_operator_event_loop_lag_seconds", "How late a timer fires.",
            buckets=_LAG_SECONDS, registry=registry,
        )  # fmt: skip

    def visited(self, kind: str, seconds: float) -> None:
        """One visit is over."""
        self._visits.labels(kind).observe(seconds)

    def failed(self, kind: str, error: Exception) -> None:
        """One visit failed."""
        failure_class = error.failure_class.value if isinstance(error, EnginewrightError) else "Unexpected"
        self._failures.labels(kind, failure_class, type(error).__name__).inc()

    def wrote(self, effect: str) -> None:
        """One effect was executed."""
        self._effects.labels(effect).inc()

    def begun(self, kind: str, late_seconds: float) -> None:
        """A visit begins, so long after it was due."""
        self._late.labels(kind).observe(late_seconds)

    def called(self, call: Call) -> None:
        """The API server was asked."""
        self._calls.labels(call.verb, call.plural, str(call.code)).inc()
        self._call_seconds.labels(call.verb, call.plural).observe(call.seconds)

    def throttled(self, seconds: float) -> None:
        """A request waited for its turn."""
        self._throttled.inc(seconds)

    def follow_queue(self, depth: Callable[[], int], oldest_seconds: Callable[[], float]) -> None:
        """Ask the queue when scraped."""
        self._depth.set_function(depth)
        self._oldest.set_function(oldest_seconds)

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """For as long as this replica works."""
        self._leading.set(1)
        try:
            yield
        finally:
            self._leading.set(0)

    async def measure_lag(self) -> None:
        """Until cancelled. What blocks the event loop shows here first."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            await asyncio.sleep(_SAMPLE_SECONDS)
            self._lag.observe(max(0.0, clock() - began - _SAMPLE_SECONDS))
