"""What no metric may hide: numbers that are none, an engine that always says the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.errors import DeterministicError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ERROR = 1e-4
"""Largest difference an unquantised engine may show against eager, element by element."""

_CONSTANT = 1e-6


def check_finite(vectors: NDArray[np.float32], *, who: str) -> None:
    """Raises DeterministicError NotFinite or ConstantOutput."""
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise DeterministicError(
            "NotFinite",
            f"{who} gives NaN or infinity for {broken.size} of {len(vectors)} rows, first row {broken[0]};"
            " its weights or its format are broken",
        )
    if len(vectors) > 1 and float(np.ptp(vectors, axis=0).max()) < _CONSTANT:
        raise DeterministicError(
            "ConstantOutput", f"{who} gives the same output for all {len(vectors)} rows; its weights are broken"
        )


def check_equal(engine: NDArray[np.float32], baseline: NDArray[np.float32]) -> float:
    """Largest difference. Raises DeterministicError NumericalMismatch above MAX_ERROR."""
    error = float(np.abs(engine.astype(np.float64) - baseline).max())
    if error > MAX_ERROR:
        raise DeterministicError(
            "NumericalMismatch",
            f"the unquantised engine differs from eager PyTorch by {error:.2g}, more than {MAX_ERROR:g};"
            " choose another engine.backend",
        )
    return error
