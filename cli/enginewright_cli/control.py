"""up, down, status: the control plane of this machine."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from enginewright_cli.local import control_plane, daemon
from enginewright_cli.local.components import GRPC_PORT, HTTP_PORT
from enginewright_cli.options import StateOption, state_directory
from enginewright_cli.output import console, print_table

HttpPortOption = Annotated[int, typer.Option("--http-port", help="Gateway: OpenAI and KServe v2 HTTP.")]
GrpcPortOption = Annotated[int, typer.Option("--grpc-port", help="Gateway: KServe v2 gRPC.")]
ScaleDownOption = Annotated[
    float, typer.Option("--scale-down-seconds", help="Load must stay low for this long before a replica goes.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status):
        app.command()(command)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is up; it goes on in the background.")
    ] = False,
    http_port: HttpPortOption = HTTP_PORT,
    grpc_port: GrpcPortOption = GRPC_PORT,
    scale_down_seconds: ScaleDownOption = 120.0,
    state: StateOption = None,
) -> None:
    """Start the control plane of this machine: operator, gateway, autoscaler, and a node that runs their children."""
    options = control_plane.Options(http_port=http_port, grpc_port=grpc_port, scale_down_seconds=scale_down_seconds)
    where = state_directory(state)
    if detach:
        running = daemon.start(where, options)
        console.print(f"{running.sentence}; gateway at http://127.0.0.1:{running.http_port}", markup=False)
        return
    asyncio.run(control_plane.run(where, options, announce=lambda text: console.print(text, markup=False)))


def down(state: StateOption = None) -> None:
    """Stop the control plane and everything it runs. Objects and artifacts stay for the next `up`."""
    console.print(daemon.stop(state_directory(state)), markup=False)


def status(state: StateOption = None) -> None:
    """Is the control plane up, and are its parts ready? Exit code 1 when it is not."""
    where = state_directory(state)
    running = daemon.running(where)
    if running is None:
        console.print(f"not running (state in {where.root}); start it with: enginewright up --detach", markup=False)
        raise typer.Exit(1)
    parts = asyncio.run(control_plane.parts(where))
    print_table(["PART", "READY", "RESTARTS"], [[part.name, part.ready, part.restarts] for part in parts])
    console.print(f"process {running.pid}, state in {where.root}", markup=False)
    console.print(
        f"gateway: OpenAI http://127.0.0.1:{running.http_port}/v1, KServe v2 http://127.0.0.1:{running.http_port}"
        f" and gRPC 127.0.0.1:{running.grpc_port}",
        markup=False,
        soft_wrap=True,
    )
    if any(not part.is_ready for part in parts):
        raise typer.Exit(1)
