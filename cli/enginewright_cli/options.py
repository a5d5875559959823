"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginewright_cli.output import Format
from enginewright_cli.state import StateDirectory
from enginewright_cli.target import Target

FileOption = Annotated[
    str, typer.Option("--filename", "-f", help="File or folder with objects; `-` is standard input.")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.")]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        envvar="ENGINEWRIGHT_CONTEXT",
        help="kubeconfig context of a cluster (`current` takes the current one); left out: this machine.",
    ),
]
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="table, json or yaml.")]
StateOption = Annotated[
    Path | None, typer.Option("--state-dir", envvar="ENGINEWRIGHT_HOME", help="Folder of the local control plane.")
]
DEFAULT_NAMESPACE = "default"


def state_directory(path: Path | None) -> StateDirectory:
    """The folder given, or the default."""
    return StateDirectory(path.expanduser().absolute()) if path else StateDirectory.default()


def target(namespace: str, context: str | None, state: Path | None = None) -> Target:
    """What the options mean together."""
    return Target(state_directory(state), namespace, "" if context == "current" else context)
