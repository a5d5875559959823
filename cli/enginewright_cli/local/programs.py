"""Operator, gateway and autoscaler on the objects of this machine: one process each, ended by SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from enginewright_api.logs import log_as_json
from enginewright_cli.local.control_plane import open_cluster
from enginewright_cli.local.settings import operator_settings
from enginewright_cli.state import StateDirectory
from enginewright_store import open_store


async def operator(
    state: StateDirectory, *, health_port: int, drain_seconds: float, gateway_ports: tuple[int, int]
) -> None:
    """Reconcile until SIGTERM."""
    from enginewright_operator.shell.observability import Observability
    from enginewright_operator.shell.operator import Operator
    from enginewright_operator.shell.store_lookup import ArtifactStoreLookup

    log_as_json("INFO")
    cluster = open_cluster(state)
    http_port, grpc_port = gateway_ports
    settings = operator_settings(state, http_port=http_port, grpc_port=grpc_port, drain_seconds=drain_seconds)
    seen = Observability()
    program = Operator(cluster, ArtifactStoreLookup(open_store(state.store_uri)), settings, metrics=seen.metrics)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(seen.serve("127.0.0.1", health_port))
            group.create_task(program.run())

    try:
        await _until_terminated(both())
    finally:
        await cluster.close()


async def gateway(state: StateDirectory, *, http_port: int, grpc_port: int) -> None:
    """Serve until SIGTERM; on a laptop without keys, on the loopback interface only."""
    from enginewright_gateway.app import serve
    from enginewright_gateway.exchange import log_to_stdout
    from enginewright_gateway.settings import GatewaySettings

    log_to_stdout()
    cluster = open_cluster(state)
    try:
        await serve(
            cluster, GatewaySettings(http_port=http_port, grpc_port=grpc_port, allow_anonymous=True, drain_seconds=10.0)
        )
    finally:
        await cluster.close()


async def autoscaler(state: StateDirectory, *, health_port: int, gateway_url: str, scale_down_seconds: float) -> None:
    """Scale until SIGTERM."""
    from enginewright_autoscaler.service import run
    from enginewright_autoscaler.settings import AutoscalerSettings

    log_as_json("WARNING")
    cluster = open_cluster(state)
    settings = AutoscalerSettings(
        gateway_urls=(gateway_url,), metrics_port=health_port, scale_down_window_seconds=scale_down_seconds
    )
    try:
        await _until_terminated(run(cluster, settings))
    finally:
        await cluster.close()


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """Run until it ends by itself (with its error) or SIGTERM or SIGINT comes."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return
