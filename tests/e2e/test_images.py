"""The images as they were built: what they say they are, what they hold, what a node pulls."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.installation import ROOT

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("e2e"), pytest.mark.usefixtures("images")]


def test_the_control_image_is_small_enough_to_pull() -> None:
    """The bar stands in images/sizes.sh, which fails beyond it."""
    done = subprocess.run([str(ROOT / "images/sizes.sh"), "control"], capture_output=True, text=True, check=False)
    print(done.stdout)  # noqa: T201 - the figure of this run
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("control: ")
