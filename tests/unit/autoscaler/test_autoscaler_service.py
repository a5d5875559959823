"""The program as a whole: settings, scraping over HTTP, its own metrics, start and stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError
from typer.testing import CliRunner

from enginewright_api.optimized_model import ScalingState
from enginewright_autoscaler import scraper as scraping
from enginewright_autoscaler.main import cli
from enginewright_autoscaler.policy import Decision, Numbers, Reason
from enginewright_autoscaler.scraper import FixedGateways, Scraper
from enginewright_autoscaler.service import run
from enginewright_autoscaler.settings import AutoscalerSettings
from enginewright_autoscaler.signals import Signals
from enginewright_autoscaler.telemetry import Telemetry, TelemetryServer
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import POD, Ref
from tests.unit.autoscaler.test_autoscaler_loop import KEY, MODEL, manifest, pod, serving
from tests.unit.autoscaler.test_autoscaler_signals import GatewayMetrics


async def eventually(what: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until `what` holds."""
    for _ in range(int(seconds / 0.05)):
        if await what():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"not within {seconds} s")


async def test_run_scales_a_model_until_it_is_cancelled() -> None:
    cluster, gateway = FakeCluster(), GatewayMetrics()
    await cluster.create(manifest())
    created = await cluster.create(pod(0))
    await cluster.patch_status(Ref(POD, created["metadata"]["name"], "default"), pod(0)["status"])
    gateway.levels(30, 4)
    async with serving(gateway) as (url, _):
        settings = AutoscalerSettings(gateway_urls=(url,), interval_seconds=0.05)
        work = asyncio.create_task(run(cluster, settings))

        async def scaled() -> bool:
            return (await cluster.get(MODEL))["spec"]["replicas"] == 3

        await eventually(scaled)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


class Slow:
    """A gateway that misbehaves in a way of its own."""

    def __init__(self, way: str) -> None:
        self.way = way

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if self.way == "cut":
            response.content_length = 1000
        await response.prepare(request)
        await response.write(b'enginewright_queue_depth{model="default/minilm"} 1\n')
        if self.way == "huge":
            for _ in range(20):
                await response.write(b"# " + b"x" * 998 + b"\n")
        elif self.way == "slow":
            await asyncio.sleep(5)
        elif self.way == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif self.way == "binary":
            await response.write(b"\xff\xfe\n")
        return response


@pytest.mark.parametrize("way", ["huge", "slow", "cut", "binary"])
async def test_a_gateway_that_misbehaves_is_no_scrape(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "SCRAPE_SECONDS", 0.3)
    monkeypatch.setattr(scraping, "LARGEST_ANSWER_BYTES", 10_000)
    app = web.Application()
    app.router.add_get("/metrics", Slow(way).metrics)
    signals, failed = Signals(), list[str]()
    async with TestServer(app, host="127.0.0.1") as server, httpx.AsyncClient(trust_env=False) as client:
        url = str(server.make_url("")).rstrip("/")
        gateways = FixedGateways([f"{url}/"])
        await Scraper(gateways, signals, client=client, clock=lambda: 5.0, failed=failed.append).round()
    assert failed == [url]
    assert signals.traffic(KEY).waiting is None


async def test_a_gateway_that_is_not_there_does_not_hide_another() -> None:
    gateway, signals = GatewayMetrics(), Signals()
    gateway.levels(3, 0)
    async with serving(gateway) as (url, _), httpx.AsyncClient(trust_env=False) as client:
        gateways = FixedGateways([url, "http://127.0.0.1:9"])
        await Scraper(gateways, signals, client=client, clock=lambda: 5.0).round()
    assert signals.traffic(KEY).waiting.value == 3  # type: ignore[union-attr]


def test_health_and_metrics_are_served() -> None:
    now = [100.0]
    telemetry = Telemetry(lambda: now[0])
    numbers = Numbers(current=1, signal_age_seconds=2.5)
    telemetry.decided(KEY, Decision(3, Reason.QUEUE_DEPTH, ScalingState.FRESH, "because", numbers))
    telemetry.changed(KEY)
    telemetry.scrape_failed("http://a")
    telemetry.failed(KEY, "Unavailable")
    with TelemetryServer(telemetry, host="127.0.0.1", port=0) as server:
        base = f"http://127.0.0.1:{server.port}"
        text = httpx.get(f"{base}/metrics", trust_env=False).text
        for line in (
            f'enginewright_autoscaler_desired_replicas{{model="{KEY}"}} 3.0',
            f'enginewright_autoscaler_signal_age_seconds{{model="{KEY}"}} 2.5',
            f'enginewright_autoscaler_decisions_total{{model="{KEY}",reason="QueueDepth"}} 1.0',
            f'enginewright_autoscaler_changes_total{{model="{KEY}"}} 1.0',
            'enginewright_autoscaler_scrape_failures_total{gateway="http://a"} 1.0',
            f'enginewright_autoscaler_failures_total{{model="{KEY}",reason="Unavailable"}} 1.0',
        ):
            assert line in text
        telemetry.forget(KEY)
        assert "desired_replicas{" not in httpx.get(f"{base}/metrics", trust_env=False).text
        assert httpx.get(f"{base}/healthz", trust_env=False).status_code == 200
        now[0] += 31
        assert "enginewright_autoscaler_round_age_seconds 31.0" in httpx.get(f"{base}/metrics", trust_env=False).text
        late = httpx.get(f"{base}/healthz", trust_env=False)
        assert (late.status_code, late.text) == (503, "no round ended for 31 s")
        telemetry.round_ended()
        assert httpx.get(f"{base}/healthz", trust_env=False).status_code == 200
        assert httpx.get(f"{base}/else", trust_env=False).status_code == 404


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "gateway-url"),
        ({"gateway_urls": ("http://a",), "gateway_service": "a/b"}, "gateway-url"),
        ({"gateway_urls": ("ftp://a",)}, "gateway_urls"),
        ({"gateway_service": "nameless"}, "gateway_service"),
        ({"gateway_service": "a/b", "interval_seconds": 0}, "interval_seconds"),
        ({"gateway_service": "a/b", "scale_down_window_seconds": 0}, "scale_down_window_seconds"),
        ({"gateway_service": "a/b", "metrics_port": 70000}, "metrics_port"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        AutoscalerSettings(**values)


def test_settings_reach_the_policy() -> None:
    settings = AutoscalerSettings(gateway_service="a/b", scale_down_window_seconds=42)
    assert settings.tuning().scale_down_window_seconds == 42


def test_the_command_line_names_what_is_wrong() -> None:
    wrong = CliRunner().invoke(cli, ["run", "--interval-seconds", "0", "--gateway-url", "http://a"])
    assert wrong.exit_code == 2
    assert "interval_seconds" in wrong.stderr
    missing = CliRunner().invoke(cli, ["run", "--gateway-url", "http://a", "--kubeconfig", "/nowhere/config"])
    assert missing.exit_code == 20
    assert "/nowhere/config" in missing.stderr


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {}}]
"""


def test_the_program_waits_for_the_cluster_and_ends_on_sigterm(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(KUBECONFIG)
    command = [sys.executable, "-c", "from enginewright_autoscaler.main import main; main()", "run"]
    options = ["--gateway-url", "http://127.0.0.1:9", "--kubeconfig", str(config), "--interval-seconds", "0.1"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env={**os.environ}) as program:
        assert program.stderr is not None
        try:
            lines = []
            for line in program.stderr:
                lines.append(line)
                if "cannot be read" in line:
                    break
            program.send_signal(signal.SIGTERM)
            assert program.wait(timeout=20) == 0
        finally:
            program.kill()
    told = [json.loads(line) for line in lines]
    assert told[0]["message"] == "settings" and told[0]["settings"]["gateway_urls"] == ["http://127.0.0.1:9"]
    assert all({"time", "level", "logger"} <= line.keys() for line in told), "all of the log is JSON"
