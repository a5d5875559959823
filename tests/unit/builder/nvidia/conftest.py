"""Golden files of this folder."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.unit.builder.nvidia.golden import GoldenYaml


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Compares with `__snapshots__`."""
    return snapshot.use_extension(GoldenYaml)
