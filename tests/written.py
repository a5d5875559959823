"""What programs log, as a log collector reads it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from enginewright_api.logs import JsonFormatter

Line = dict[str, Any]


@pytest.fixture(autouse=True)
def logging_is_left_alone() -> Iterator[None]:
    """A program that ran in the process of the tests would go on logging, to an output that is closed by then."""
    root = logging.getLogger()
    level, before = root.level, set(root.handlers)
    yield
    for handler in set(root.handlers) - before:
        if isinstance(handler.formatter, JsonFormatter):
            root.removeHandler(handler)
            root.setLevel(level)


class Written:
    """Lines as they come out of a process."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self, message: str = "") -> list[Line]:
        """All, or those with this message."""
        found = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in found if message in ("", line["message"])]


@pytest.fixture
def written() -> Iterator[Written]:
    """All that is logged from INFO on."""
    written, root = Written(), logging.getLogger()
    handler, level = logging.StreamHandler(written.stream), root.level
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)
