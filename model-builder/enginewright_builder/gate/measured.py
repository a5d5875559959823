"""What one metric says of engine and baseline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of both, with bounds of the drop."""

    baseline: float
    optimized: float
    drop: float
    bounds: list[float]
    minimum: float | None = None
