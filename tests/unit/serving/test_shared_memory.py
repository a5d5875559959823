"""Shared memory that a killed server left."""

from __future__ import annotations

import os
from pathlib import Path

from enginewright_serving.shared_memory import region_prefix, remove_abandoned_regions, remove_regions

NEVER_A_PID = 2**22 + 1  # above the kernel's largest


def test_only_regions_of_the_dead_and_ours_go(tmp_path: Path) -> None:
    names = [f"{region_prefix(NEVER_A_PID)}1", f"{region_prefix(os.getpid())}1", "triton_other", "enginewright-x-1"]
    for name in names:
        (tmp_path / name).touch()
    assert remove_abandoned_regions(tmp_path) == 1
    assert {file.name for file in tmp_path.iterdir()} == set(names[1:])
    assert remove_regions(os.getpid(), tmp_path) == 1
    assert {file.name for file in tmp_path.iterdir()} == set(names[2:])
