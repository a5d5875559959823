"""Programs that run in the process of the tests leave its logging as it was."""

from __future__ import annotations

import logging

import pytest

from enginewright_api.logs import JsonFormatter, log_as_json


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_programs_log_ends_with_its_test(time: str) -> None:
    root = logging.getLogger()
    assert not [each for each in root.handlers if isinstance(each.formatter, JsonFormatter)], time
    assert root.level == logging.WARNING
    log_as_json("DEBUG")
    assert root.level == logging.DEBUG
