"""`enginewright-builder`: run one EngineBuild."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from enginewright_api.logs import log_as_json
from enginewright_builder.running import build
from enginewright_builder.secrecy import keep_out_of_logs, mounted
from enginewright_builder.settings import SECONDS_A_SHAPE, Settings

app = typer.Typer(help="Turn a trained transformer into a proven engine.", add_completion=False, no_args_is_help=True)


@app.callback()
def root() -> None:
    """Subcommands are named, so that more can come."""


@app.command()
def run(
    *,
    recipe: Annotated[Path, typer.Option(help="BuildRequest as JSON.")],
    store: Annotated[str, typer.Option(help="Store URI: file:// or s3://.")],
    workdir: Annotated[Path, typer.Option(help="Folder for checkpoints, stage results and logs; made when missing.")],
    signing_key: Annotated[Path | None, typer.Option(help="EC private key (PEM) that signs the artifact.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads of toolchain and servers; all CPUs by default.")
    ] = None,
    seconds_a_shape: Annotated[
        float,
        typer.Option(min=0.1, max=600, help="How long engine and baseline are timed at each batch size and length."),
    ] = SECONDS_A_SHAPE,
) -> None:
    """Run one build. One JSON line a stage event on standard output, logs on standard error, JSON but on a terminal."""
    level = os.environ.get("LOG_LEVEL", "INFO")
    if sys.stderr.isatty():
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    else:
        log_as_json(level)
    settings = Settings.of(
        recipe=recipe,
        store=store,
        workdir=workdir,
        signing_key=signing_key,
        threads=threads,
        seconds_a_shape=seconds_a_shape,
    )
    keep_out_of_logs(mounted(settings.places.tokens))
    outcome = build(settings)
    if settings.termination_message is not None:
        settings.termination_message.write_bytes(outcome.termination_message())
    if outcome.failure is not None:
        print(f"{outcome.failure.reason}: {outcome.failure.message}", file=sys.stderr)  # noqa: T201 - for the person
        raise typer.Exit(outcome.failure.exit_code or 1)


def main() -> None:
    """Console script."""
    app()
