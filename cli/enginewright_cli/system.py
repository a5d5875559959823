"""The platform's programs as processes of local mode. Hidden: the node agent starts these, people do not."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from enginewright_cli.local import programs
from enginewright_cli.local.components import GRPC_PORT, HTTP_PORT
from enginewright_cli.options import StateOption, state_directory

HealthPort = Annotated[int, typer.Option("--health-port", help="Health and metrics.")]


def register(app: typer.Typer) -> None:
    """Add the hidden group."""
    group = typer.Typer(help="Programs of the local control plane.", no_args_is_help=True)
    for command in (operator, gateway, autoscaler):
        group.command()(command)
    app.add_typer(group, name="system", hidden=True)


def operator(
    health_port: HealthPort,
    drain_seconds: Annotated[float, typer.Option("--drain-seconds")] = 2.0,
    gateway_port: Annotated[int, typer.Option("--gateway-port")] = HTTP_PORT,
    gateway_grpc_port: Annotated[int, typer.Option("--gateway-grpc-port")] = GRPC_PORT,
    state: StateOption = None,
) -> None:
    """Reconcile the objects of this machine."""
    asyncio.run(
        programs.operator(
            state_directory(state),
            health_port=health_port,
            drain_seconds=drain_seconds,
            gateway_ports=(gateway_port, gateway_grpc_port),
        )
    )


def gateway(
    http_port: Annotated[int, typer.Option("--http-port")],
    grpc_port: Annotated[int, typer.Option("--grpc-port")],
    state: StateOption = None,
) -> None:
    """Serve OpenAI and KServe v2 for the models of this machine."""
    asyncio.run(programs.gateway(state_directory(state), http_port=http_port, grpc_port=grpc_port))


def autoscaler(
    health_port: HealthPort,
    gateway_port: Annotated[int, typer.Option("--gateway-port")],
    scale_down_seconds: Annotated[float, typer.Option("--scale-down-seconds")] = 120.0,
    state: StateOption = None,
) -> None:
    """Scale the models of this machine."""
    asyncio.run(
        programs.autoscaler(
            state_directory(state),
            health_port=health_port,
            gateway_url=f"http://127.0.0.1:{gateway_port}",
            scale_down_seconds=scale_down_seconds,
        )
    )
