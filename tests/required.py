"""What a test does where the machine lacks a program that `make system-deps`, `make setup` or Go would bring."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

VARIABLE = "ENGINEWRIGHT_REQUIRE_TOOLS"
"""Set where all of them are installed, as on CI: a test that cannot run is a failure there, not a skip."""


def cannot_run(reason: str) -> NoReturn:
    """Skip with the reason, or fail with it where everything has to run."""
    if os.environ.get(VARIABLE):
        pytest.fail(f"{reason} ({VARIABLE} is set)", pytrace=False)
    pytest.skip(reason)
