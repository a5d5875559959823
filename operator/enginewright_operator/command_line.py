"""What an operator's settings are, by its command line alone: for tools that say in advance what it would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer
import typer.main

from enginewright_api.errors import DeterministicError

from .core.settings import OperatorSettings
from .main import configured


def settings_of(arguments: Sequence[str], environment: Mapping[str, str]) -> OperatorSettings:
    """Settings of `enginewright-operator run ARGUMENTS` under that environment; this process's own is not read.

    DeterministicError when the operator would refuse them.
    """
    parser = typer.Typer(add_completion=False)
    parser.command()(configured)
    command = typer.main.get_command(parser)
    said: dict[str, Any] = {}
    for option in command.params:
        variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
        option.envvar = None
        for variable in variables:
            if variable in environment and option.name:
                value = environment[variable]
                said[option.name] = value.split() if getattr(option, "multiple", False) else value
    try:
        settings, _ = command.main(list(arguments), standalone_mode=False, default_map=said)
    except typer.TyperException as error:
        raise DeterministicError("InvalidSettings", f"enginewright-operator run: {error.format_message()}") from None
    assert isinstance(settings, OperatorSettings)  # noqa: S101 - click's `main` returns what the function does
    return settings
