"""Pages that say which test checks a claim name tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["architecture.md", "operations.md", "results.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:tests/)?[a-z0-9_/]+/test_[a-z0-9_]+\.py)`", text)
    assert named
    missing = [name for name in named if not (ROOT / "tests" / name.removeprefix("tests/")).is_file()]
    assert missing == []
