"""Operator, gateway and autoscaler of this process, with a little done by each, for a Prometheus to read."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

import httpx
import uvicorn
from prometheus_client import generate_latest

from enginewright_api.optimized_model import ScalingState
from enginewright_autoscaler.policy import Decision, Numbers, Reason
from enginewright_autoscaler.telemetry import Telemetry, TelemetryServer
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.kubernetes_connection import Call
from enginewright_cluster.port import UnavailableError
from enginewright_gateway.app import create_gateway, http_app
from enginewright_gateway.comparison import Comparison
from enginewright_gateway.metrics import Metrics as GatewayMetrics
from enginewright_gateway.pool import PoolLimits
from enginewright_gateway.pools import Pools
from enginewright_gateway.routes import RouteTable
from enginewright_gateway.settings import GatewaySettings
from enginewright_gateway.watch import follow
from enginewright_operator.shell.metrics import Metrics as OperatorMetrics
from enginewright_operator.shell.observability import Observability
from enginewright_operator.shell.operator import Operator
from tests.scenarios.world import Shifted, World

MODEL = "default/search"


def told_text() -> str:
    """What the three programs tell before anything happened."""
    pools = Pools(RouteTable(), PoolLimits(inflight_batches=1, hold_seconds=1, max_held=1))
    texts = (
        generate_latest(OperatorMetrics().registry),
        GatewayMetrics(pools).text(),
        generate_latest(Telemetry(time.monotonic).registry),
    )
    return b"".join(texts).decode()


def told_names() -> set[str]:
    """Names of all metrics, whether anything was counted yet or not."""
    types = re.findall(r"^# TYPE (\S+) \w+$", told_text(), re.MULTILINE)
    return {name for name in types if not name.endswith("_created")}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Programs:
    """`with Programs() as programs:` serves three /metrics; `work` has each of them do something."""

    def __init__(self) -> None:
        self._seen = Observability()
        self._telemetry = Telemetry(time.monotonic)
        self._server = TelemetryServer(self._telemetry, host="127.0.0.1", port=0)
        self._ports = {"operator": free_port(), "gateway": free_port(), "autoscaler": self._server.port}
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        self._counted: GatewayMetrics
        self._pools: Pools

    @property
    def addresses(self) -> dict[str, str]:
        """Job to address."""
        return {name: f"127.0.0.1:{port}" for name, port in self._ports.items()}

    def __enter__(self) -> Programs:
        self._thread.start()
        self._server.__enter__()
        self._autoscale()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._server.__exit__()

    def work(self) -> None:
        """For two seconds, so that there are rates. What a server would answer is counted as if it had."""
        url = f"http://{self.addresses['gateway']}/v1/embeddings"
        comparison = Comparison("window")
        for _ in range(4):
            # There is no server: the gateway holds the request, and answers 503.
            assert httpx.post(url, json={"model": "search", "input": "x"}, timeout=10).status_code == 503
            self._pools.all()[MODEL].comparison = comparison
            for _, tally in comparison.versions():
                tally.succeeded(0.02)
            self._counted.answered(MODEL, "200", 0.02)
            self._counted.prompt_tokens(MODEL, 5)
            self._counted.first_token(MODEL, 0.1)
            self._counted.more_tokens(MODEL, 3, 0.06)
            self._autoscale()
            for code in (200, 409):
                self._seen.metrics.called(Call("patch", "optimizedmodels", code, 0.01))
            self._seen.metrics.failed("EngineBuild", UnavailableError("Unavailable", "no answer"))

    def _autoscale(self) -> None:
        numbers = Numbers(current=1, signal_age_seconds=0.5)
        self._telemetry.decided(MODEL, Decision(2, Reason.QUEUE_DEPTH, ScalingState.FRESH, "because", numbers))
        self._telemetry.changed(MODEL)
        self._telemetry.scrape_failed("http://gateway")
        self._telemetry.failed(MODEL, "Unavailable")
        self._telemetry.round_ended()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        """A whole operator and gateway on a cluster in memory: one model becomes Ready, one waits for its class."""
        world = World(FakeCluster(), clock=Shifted())
        operator = Operator(world.cluster, world.store, world.settings, world.clock, metrics=self._seen.metrics)
        gateway = create_gateway(GatewaySettings(allow_anonymous=True, hold_seconds=0.5))
        self._counted, self._pools = gateway.metrics, gateway.pools
        server = uvicorn.Server(
            uvicorn.Config(http_app(gateway), port=self._ports["gateway"], lifespan="off", log_config=None)
        )
        parts: tuple[Coroutine[Any, Any, None], ...] = (
            operator.run(),
            self._seen.serve("127.0.0.1", self._ports["operator"]),
            self._seen.metrics.measure_lag(),
            follow(world.cluster, gateway.table, None),
        )
        tasks = [asyncio.ensure_future(each) for each in parts]
        web = asyncio.ensure_future(server.serve())
        await world.give_class()
        await world.apply()
        await world.apply("waiting", hardware={"acceleratorClasses": ["unheard-of"]})
        while not self._ended.is_set():
            await world.step()
            await asyncio.sleep(0.02)
        server.should_exit = True
        await web
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.upstream.close()
