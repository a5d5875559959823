"""Keeps mounted secrets out of all that is written, whoever writes it: a hub may send back to us what we sent to it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

HIDDEN = "[hidden]"


def mounted(folder: Path) -> frozenset[str]:
    """Contents of all files below a folder, as they are used: stripped. Empty where there is no folder."""
    found = {path.read_text(errors="replace").strip() for path in folder.rglob("*") if path.is_file()}
    return frozenset(found - {""})


def without(text: str, secrets: Collection[str]) -> str:
    """The text with each of the secrets hidden, longer ones first: one may be the start of another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def keep_out_of_logs(secrets: Collection[str]) -> None:
    """Of every record made from now on, with its traceback. Libraries have handlers of their own, but these records."""
    make, exceptions = logging.getLogRecordFactory(), logging.Formatter()

    def record(*arguments: Any, **options: Any) -> logging.LogRecord:
        made = make(*arguments, **options)
        try:
            text = made.getMessage()
        except (TypeError, ValueError, KeyError):  # somebody's arguments do not fit their message
            text = f"{made.msg} {made.args}"
        made.msg, made.args = without(text, secrets), None
        if made.exc_info:
            made.exc_text = without(exceptions.formatException(made.exc_info), secrets)
        return made

    if secrets:
        logging.setLogRecordFactory(record)
