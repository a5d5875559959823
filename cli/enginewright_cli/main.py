"""`enginewright`: the command line.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not ready in time, 22 (of `build`) something outside stayed away.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import version

import typer

from enginewright_api.errors import EnginewrightError
from enginewright_cli.output import errors

_COMMANDS = {
    "authoring": ("init", "validate", "plan", "render"),
    "objects": ("apply", "get", "describe", "wait", "logs", "delete"),
    "building": ("build", "report"),
    "collecting": ("gc",),
    "bundling": ("bundle", "unbundle"),
    "control": ("up", "down", "status"),
    "demonstration": ("demo",),
    "system": ("system",),
}
"""Modules in the order of the help page, and what each adds."""
_USAGE = 2


def application(command: str | None = None) -> typer.Typer:
    """The command line; with a command's name only the module that has it, since imports are most of a short run."""
    app = typer.Typer(
        name="enginewright",
        help="Compress, prove, serve and scale transformers from one model.yaml; on this machine or on a cluster.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    wanted = [module for module, commands in _COMMANDS.items() if command in commands] or list(_COMMANDS)
    for module in wanted:
        import_module(f"enginewright_cli.{module}").register(app)
    return app


def _version(*, wanted: bool) -> None:
    if wanted:
        print(f"enginewright {version('enginewright')}")
        raise typer.Exit


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
    """Entry point: what is expected to go wrong becomes one sentence, never a traceback."""
    try:
        application(next(iter(sys.argv[1:]), None))()
    except EnginewrightError as error:
        errors.print(f"enginewright: {error.message}", markup=False, soft_wrap=True)
        sys.exit(_USAGE if error.reason == "Usage" else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A folder that may not be written to, a full disk: the machine's fault, told in its words.
        where = f"{error.filename}: " if error.filename else ""
        errors.print(f"enginewright: {where}{error.strerror or error}", markup=False, soft_wrap=True)
        sys.exit(1)
