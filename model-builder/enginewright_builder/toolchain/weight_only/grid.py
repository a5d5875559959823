"""Weights as integers on a grid: rounding to the nearest, scales per output channel or per group of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
ZeroPoints = NDArray[np.uint8] | NDArray[np.float32]
"""Whole levels, or with a fractional grid any number that float16 holds."""
_FAR = 8.0
"""Spans between a fractional range and zero from which on it is widened to zero: float16 would hold its zero point no
finer than a sixteenth of a level."""
_SHRINKS = np.linspace(1.0, 0.6, 9)


@dataclass(frozen=True, slots=True)
class Grid:
    """How a weight becomes an integer.

    8 bits are symmetric (256 levels lose nothing by it and need no zero points); 4 and 2 bits are not: with 16 or 4
    levels, a range that fits both ends is worth more than the bytes of its zero points.

    A whole zero point shifts its group by up to half a level, so a range has to contain zero and its ends are not
    levels. A fractional one costs 16 bits a group and puts both ends exactly on levels: weights that were on such a
    grid before (llama.cpp's Q4_0, Q4_1 and Q4_K, groups of 32) come back as they were.
    """

    bits: int
    group: int | None = None
    """Inputs that share a scale; None: all inputs of an output channel."""
    fractional: bool = False
    """Whether zero points lie between levels; of no effect on a symmetric grid."""

    @property
    def symmetric(self) -> bool:
        """Whether zero is the middle level for every group."""
        return self.bits == 8

    @property
    def top(self) -> int:
        """Highest level; the lowest is 0."""
        return int(2**self.bits - 1)

    @property
    def middle(self) -> int:
        """Level of zero where the grid is symmetric."""
        return int(2 ** (self.bits - 1))

    @property
    def zero_point_bits(self) -> int:
        """What a group's zero point takes."""
        if self.symmetric:
            return 0
        return 16 if self.fractional else self.bits

    def size(self, inputs: int) -> int:
        """Inputs of one group."""
        return self.group or inputs


@dataclass(frozen=True, slots=True)
class Codes:
    """A weight matrix as unsigned levels: weight = (level − zero point) × scale."""

    grid: Grid
    levels: NDArray[np.uint8]
    """[outputs, groups, inputs of a group]."""
    scales: Weights
    """[outputs, groups]; every one exact in float16, for that is how runtimes store them."""
    zero_points: ZeroPoints
    """[outputs, groups]."""

    def same(self, other: Codes) -> bool:
        """Whether both stand for the same weights in the same bytes."""
        return self.grid == other.grid and all(
            np.array_equal(one, another)
            for one, another in (
                (self.levels, other.levels), (self.scales, other.scales), (self.zero_points, other.zero_points),
            )
        )  # fmt: skip

    def weights(self) -> Weights:
        """What the runtime computes with, [outputs, inputs]."""
        offsets = self.levels.astype(np.float32) - self.zero_points[..., None].astype(np.float32)
        return (offsets * self.scales[..., None]).reshape(self.levels.shape[0], -1)


def ranges(weights: Weights, grid: Grid, importance: NDArray[np.float64] | None = None) -> tuple[Weights, ZeroPoints]:
    """Scales and zero points, each [...], of weights [..., inputs of a group].

    The range is that of the weights and, unless the grid is fractional, zero. With `importance` (one figure an input,
    how much an error there counts) it is shrunk, in nine steps down to 0.6, to where the weighted squared error is
    least: cutting the few largest weights makes the grid finer for all others (as AWQ's clipping and GPTQ's `mse`
    option do).
    """
    scales, zeros = _range(weights, grid, 1.0)
    if importance is None or grid.bits == 8:
        return scales, zeros
    least = _error(weights, scales, zeros, grid, importance)
    for shrink in _SHRINKS[1:]:
        tried = _range(weights, grid, shrink)
        error = _error(weights, *tried, grid, importance)
        better = error < least
        scales, zeros = np.where(better, tried[0], scales), _chosen(better, tried[1], zeros)
        least = np.minimum(error, least)
    return scales, zeros


def nearest(weights: Weights, scales: Weights, zeros: ZeroPoints, grid: Grid) -> NDArray[np.uint8]:
    """Levels nearest to weights [..., inputs of a group]."""
    levels = np.rint(weights / scales[..., None] + zeros[..., None])
    return np.asarray(np.clip(levels, 0, grid.top), np.uint8)


def round_to_nearest(weights: Weights, grid: Grid, importance: NDArray[np.float64] | None = None) -> Codes:
    """Codes of weights [outputs, inputs]; the group size must divide the inputs."""
    outputs, inputs = weights.shape
    grouped = weights.reshape(outputs, -1, grid.size(inputs))
    counts = None if importance is None else importance.reshape(grouped.shape[1:])
    scales, zeros = ranges(grouped, grid, counts)
    return Codes(grid, nearest(grouped, scales, zeros, grid), scales, zeros)


def _range(weights: Weights, grid: Grid, shrink: float) -> tuple[Weights, ZeroPoints]:
    if grid.fractional and not grid.symmetric:
        return _fractional_range(weights, grid, shrink)
    low = np.minimum(weights.min(-1), 0.0) * shrink
    high = np.maximum(weights.max(-1), 0.0) * shrink
    if grid.symmetric:
        span = np.maximum(-low, high) / (grid.middle - 1)
        scales = _half(span)
        return scales, np.full(scales.shape, grid.middle, np.uint8)
    scales = _half((high - low) / grid.top)
    return scales, np.clip(np.rint(-low / scales), 0, grid.top).astype(np.uint8)


def _fractional_range(weights: Weights, grid: Grid, shrink: float) -> tuple[Weights, Weights]:
    low, high = weights.min(-1), weights.max(-1)
    far = _FAR * (high - low)
    low, high = np.where(low > far, 0.0, low), np.where(-high > far, 0.0, high)
    middle, reach = (low + high) / 2, (high - low) / 2 * shrink
    scales = _half(2 * reach / grid.top)
    zeros = ((reach - middle) / scales).astype(np.float16).astype(np.float32)
    return scales, zeros


def _chosen(better: NDArray[np.bool_], tried: ZeroPoints, before: ZeroPoints) -> ZeroPoints:
    chosen = np.where(better, tried, before)
    return chosen.astype(np.uint8) if before.dtype == np.uint8 else chosen.astype(np.float32)


def _half(scales: NDArray[np.floating[Any]]) -> Weights:
    """Rounded to float16, never to zero: all weights of a group may be zero."""
    rounded = scales.astype(np.float16).astype(np.float32)
    return np.where(rounded > 0.0, rounded, np.float32(np.finfo(np.float16).tiny))


def _error(
    weights: Weights, scales: Weights, zeros: ZeroPoints, grid: Grid, importance: NDArray[np.float64]
) -> NDArray[np.float64]:
    levels = nearest(weights, scales, zeros, grid).astype(np.float32)
    gone = (levels - zeros[..., None].astype(np.float32)) * scales[..., None] - weights
    return np.asarray((gone**2 * importance.astype(np.float32)).sum(-1, dtype=np.float64))
