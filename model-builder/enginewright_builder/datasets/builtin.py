"""The sets that come with the builder, by name."""

from __future__ import annotations

from types import ModuleType

from enginewright_api.errors import DeterministicError
from enginewright_builder.datasets import news, reviews, similarity, valence
from enginewright_builder.datasets.rows import Row

_SETS: dict[str, ModuleType] = {module.NAME: module for module in (news, reviews, similarity, valence)}
"""Each has calibration_rows() and evaluation_rows(), which share no text."""


def builtin_rows(name: str, *, judged_on: bool) -> list[Row]:
    """Rows to judge on, or rows to learn from and to measure ranges on.

    Raises DeterministicError InvalidDataset for a name that is none, ToolchainMissing when the set's files are missing.
    """
    if name not in _SETS:
        known = ", ".join(sorted(_SETS))
        raise DeterministicError("InvalidDataset", f"data set {name}: there is no such builtin set; there is {known}")
    found: list[Row] = _SETS[name].evaluation_rows() if judged_on else _SETS[name].calibration_rows()
    return found
