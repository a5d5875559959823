"""demo: from an example's model.yaml to answers on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginewright_cli.demo.run import Demo
from enginewright_cli.local.components import GRPC_PORT, HTTP_PORT
from enginewright_cli.local.control_plane import Options
from enginewright_cli.options import StateOption, state_directory


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    model: Annotated[str, typer.Option("--model", help="An example: minilm embeds, smollm2 chats.")] = "minilm",
    filename: Annotated[
        Path | None, typer.Option("--filename", "-f", help="Another model, of task Embedding or TextGeneration.")
    ] = None,
    load: Annotated[bool, typer.Option("--load", help="Put load on it afterwards and watch it scale.")] = False,
    timeout_seconds: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the model at most.")] = 900.0,
    http_port: Annotated[int, typer.Option("--http-port", help="Gateway: HTTP.")] = HTTP_PORT,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="Gateway: gRPC.")] = GRPC_PORT,
    state: StateOption = None,
) -> None:
    """Build, prove and serve a model on this machine, ask it questions, and show how it compares with the original."""
    options = Options(http_port=http_port, grpc_port=grpc_port, scale_down_seconds=15.0)
    chosen = filename or Path("examples") / model / "model.yaml"
    Demo(state_directory(state), options, chosen, timeout_seconds).run(load=load)
