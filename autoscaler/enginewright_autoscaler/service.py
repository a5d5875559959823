"""The whole autoscaler on a given cluster: for the command line and for composing local mode."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from enginewright_autoscaler.loop import Loop
from enginewright_autoscaler.mirror import Mirror
from enginewright_autoscaler.scraper import DiscoveredGateways, FixedGateways, Gateways, Scraper
from enginewright_autoscaler.settings import AutoscalerSettings
from enginewright_autoscaler.signals import Signals
from enginewright_autoscaler.telemetry import Telemetry, TelemetryServer
from enginewright_cluster.port import Cluster

log = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def run(
    cluster: Cluster,
    settings: AutoscalerSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], datetime] = _utc_now,
) -> None:
    """Scale every model in mode Objectives until cancelled. The cluster stays the caller's to close."""
    tuning, telemetry = settings.tuning(), Telemetry(clock)
    signals = Signals(rate_seconds=tuning.rate_window_seconds)
    mirror = Mirror(cluster, namespace=settings.namespace, clock=clock)
    loop = Loop(cluster, mirror, signals, telemetry, tuning=tuning, clock=clock, wall=wall)
    # Gateways are reached directly: a proxy from the environment is meant for the outside.
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        if settings.metrics_port is not None:
            server = TelemetryServer(telemetry, host=settings.metrics_host, port=settings.metrics_port)
            stack.enter_context(server)
            log.info("metrics and health on http://%s:%d", settings.metrics_host, server.port)
        gateways = _gateways(cluster, settings)
        scraper = Scraper(gateways, signals, client=client, clock=clock, failed=telemetry.scrape_failed)
        async with asyncio.TaskGroup() as group:
            group.create_task(mirror.follow(), name="mirror")
            group.create_task(_rounds(scraper, loop, settings.interval_seconds, clock), name="rounds")


def _gateways(cluster: Cluster, settings: AutoscalerSettings) -> Gateways:
    if settings.gateway_service is None:
        return FixedGateways(settings.gateway_urls)
    namespace, service = settings.gateway_service.split("/")
    return DiscoveredGateways(cluster, namespace=namespace, service=service)


async def _rounds(scraper: Scraper, loop: Loop, interval_seconds: float, clock: Callable[[], float]) -> None:
    while True:
        began = clock()
        await scraper.round()
        await loop.round()
        await asyncio.sleep(max(0.0, interval_seconds - (clock() - began)))
