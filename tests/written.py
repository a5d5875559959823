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
