"""How a failed command ends: a log line, a termination message, an exit code by error class."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import typer

from enginewright_api.errors import EnginewrightError
from enginewright_serving.events import log

MESSAGE_VARIABLE = "TERMINATION_MESSAGE_PATH"
_IN_A_POD = Path("/dev/termination-log")
_LONGEST_MESSAGE_CHARACTERS = 1500


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn a deliberate error into what the operator reads: `{reason, message, class}` and the exit code."""
    try:
        yield
    except EnginewrightError as error:
        log("failed", reason=error.reason, message=error.message, failure_class=error.failure_class.value)
        write_message(error)
        raise typer.Exit(error.exit_code) from error


def write_message(error: EnginewrightError) -> None:
    """Termination message where TERMINATION_MESSAGE_PATH says, else at Kubernetes' own place where there is one."""
    given = os.environ.get(MESSAGE_VARIABLE, "")
    target = Path(given) if given else _IN_A_POD
    if not given and not target.exists():
        return
    message = {
        "class": error.failure_class.value,
        "reason": error.reason,
        "message": error.message[:_LONGEST_MESSAGE_CHARACTERS],
    }
    try:
        target.write_text(json.dumps(message, sort_keys=True))
    except OSError as failure:
        log("termination-message-lost", path=str(target), error=str(failure))
