"""CI cannot be green with tests skipped for want of a program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.required import VARIABLE

ROOT = Path(__file__).parents[2]
NEEDS_PROMTOOL = "tests/chart/test_alerts.py::test_promtool_takes_the_file_as_it_is"


@pytest.mark.parametrize(("required", "outcome", "code"), [("", "1 skipped", 0), ("1", "1 error", 1)])
def test_a_program_that_is_missing_is_named_and_where_all_are_required_fails(
    required: str, outcome: str, code: int, tmp_path: Path
) -> None:
    environment = {"PATH": str(tmp_path), "HOME": os.environ.get("HOME", "/"), VARIABLE: required}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", NEEDS_PROMTOOL]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert outcome in done.stdout
    assert "no promtool: run make system-deps" in done.stdout


def test_ci_requires_them() -> None:
    assert re.search(rf"export {VARIABLE}=1\b", (ROOT / ".ci/run").read_text())


def test_whoever_sends_to_a_target_of_make_requires_what_it_installs() -> None:
    """`run make system-deps` is what the reader of a skip does; on CI that was done."""
    for file in (ROOT / "tests").rglob("*.py"):
        for skip in re.findall(r"pytest\.skip\([^\n]*", file.read_text()):
            assert "run make" not in skip, f"{file.relative_to(ROOT)}: call cannot_run instead of {skip}"
