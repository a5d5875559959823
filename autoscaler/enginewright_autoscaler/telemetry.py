"""The autoscaler's own metrics and health, over HTTP."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from enginewright_autoscaler.policy import Decision

LATE_SECONDS = 30.0
"""A loop without a finished round for this long is not healthy."""


class Telemetry:
    """Metrics in a registry of their own, and when the last round ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_round = clock()
        self.registry = CollectorRegistry()
        self._desired = Gauge(
            "enginewright_autoscaler_desired_replicas", "Replicas decided", ["model"], registry=self.registry
        )
        self._age = Gauge(
            "enginewright_autoscaler_signal_age_seconds",
            "Age of the oldest signal that decisions need; NaN while one is missing",
            ["model"],
            registry=self.registry,
        )
        self._decisions = Counter(
            "enginewright_autoscaler_decisions_total",
            "Decisions by reason",
            ["model", "reason"],
            registry=self.registry,
        )
        self._changes = Counter(
            "enginewright_autoscaler_changes_total", "Writes of the replica count", ["model"], registry=self.registry
        )
        self._scrapes = Counter(
            "enginewright_autoscaler_scrape_failures_total",
            "Gateways that could not be read",
            ["gateway"],
            registry=self.registry,
        )
        age = Gauge(
            "enginewright_autoscaler_round_age_seconds",
            "Time since the last round over all models ended",
            registry=self.registry,
        )
        age.set_function(self.late_seconds)
        self._failures = Counter(
            "enginewright_autoscaler_failures_total",
            "Rounds over a model that failed",
            ["model", "reason"],
            registry=self.registry,
        )

    def decided(self, model: str, decision: Decision) -> None:
        """Every decision, also those that change nothing."""
        age = decision.numbers.signal_age_seconds
        self._desired.labels(model).set(decision.replicas)
        self._age.labels(model).set(math.nan if age is None else age)
        self._decisions.labels(model, decision.reason).inc()

    def changed(self, model: str) -> None:
        """spec.replicas was written."""
        self._changes.labels(model).inc()

    def scrape_failed(self, gateway: str) -> None:
        """A gateway could not be read."""
        self._scrapes.labels(gateway).inc()

    def failed(self, model: str, reason: str) -> None:
        """A model's round ended in an error."""
        self._failures.labels(model, reason).inc()

    def forget(self, model: str) -> None:
        """A model that is gone has no desired count."""
        for gauge in (self._desired, self._age):
            gauge.remove_by_labels({"model": model})

    def round_ended(self) -> None:
        """The loop is alive."""
        self._last_round = self._clock()

    def late_seconds(self) -> float:
        """Time since the last round ended."""
        return self._clock() - self._last_round


class TelemetryServer:
    """Serves /metrics and /healthz from a thread, so that a blocked loop shows."""

    def __init__(self, telemetry: Telemetry, *, host: str, port: int) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(telemetry))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="telemetry", daemon=True)

    @property
    def port(self) -> int:
        """The port in use, which matters where 0 was asked for."""
        return int(self._server.server_address[1])

    def __enter__(self) -> TelemetryServer:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait until the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(telemetry: Telemetry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(telemetry.registry), "text/plain; version=0.0.4; charset=utf-8")
            elif self.path == "/healthz":
                late = telemetry.late_seconds()
                text = "ok" if late < LATE_SECONDS else f"no round ended for {late:.0f} s"
                self._answer(200 if late < LATE_SECONDS else 503, text.encode(), "text/plain; charset=utf-8")
            else:
                self._answer(404, b"/metrics or /healthz", "text/plain; charset=utf-8")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Scrapes are not worth a line each."""

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
