"""`enginewright`: the command line. Exit codes: 0 ok, 1 failed, 2 usage, 3 not ready in time."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

import typer

from enginewright_api.errors import EnginewrightError
from enginewright_cli import authoring, building, control, demonstration, objects, system
from enginewright_cli.output import errors

app = typer.Typer(
    name="enginewright",
    help="Compress, prove, serve and scale transformers from one model.yaml; on this machine or on a cluster.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (authoring, objects, building, control, demonstration, system):
    module.register(app)


def _version(*, wanted: bool) -> None:
    if wanted:
        print(f"enginewright {version('enginewright')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    show: bool = typer.Option(
        False,
        "--version",
        help="Print the version and stop.",
        callback=lambda value: _version(wanted=value),
        is_eager=True,
    ),
) -> None:
    """Nothing happens before the command itself."""
    del show


def main() -> None:
    """Entry point: deliberate errors become one sentence, never a traceback."""
    try:
        app()
    except EnginewrightError as error:
        errors.print(f"enginewright: {error.message}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
