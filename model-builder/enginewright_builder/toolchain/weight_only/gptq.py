"""GPTQ: round one input after the other; what rounding breaks, the inputs not yet rounded make good.

Frantar, Ashkboos, Hoefler, Alistarh (2022), GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers, algorithm 1, without reordering of the inputs (groups then stay contiguous).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from enginewright_builder.toolchain.weight_only.grid import Codes, Grid, Weights, ZeroPoints, ranges

_DAMPING = 0.01
"""Share of the mean diagonal that is added to the diagonal, as in the paper."""
_BLOCK = 128
"""Inputs whose errors are applied to the rest in one product. Groups start where blocks do or lie within one."""


def gptq(weights: Sequence[Weights], second_moments: NDArray[np.float64], grid: Grid) -> list[Codes]:
    """Codes of matrices [outputs, inputs] that read the same activations and keep the products with them.

    `second_moments` [inputs, inputs] is the mean of x·xᵀ over calibration tokens. Ranges of a group are found when its
    first input is reached, from the weights as corrected so far. Outputs do not know of each other: the matrices are
    rounded as one.
    """
    bounds = np.cumsum([0, *(len(matrix) for matrix in weights)])
    together = np.concatenate(weights)
    outputs, inputs = together.shape
    size = grid.size(inputs)
    corrections = _corrections(second_moments)
    importance = np.diag(second_moments)
    # Inputs first: the loop goes from input to input, and memory should too.
    left = np.array(together.T, np.float32, order="C")
    levels = np.empty((inputs, outputs), np.uint8)
    scales = np.empty((inputs // size, outputs), np.float32)
    shape = (inputs // size, outputs)
    zeros: ZeroPoints = np.empty(shape, np.float32) if grid.fractional else np.empty(shape, np.uint8)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        errors = np.empty((stop - start, outputs), np.float32)
        for row in range(start, stop):
            group = row // size
            if row % size == 0:
                scales[group], zeros[group] = ranges(left[row : row + size].T, grid, importance[row : row + size])
            scale, zero = scales[group], zeros[group].astype(np.float32)
            level = np.clip(np.rint(left[row] / scale + zero), 0, grid.top)
            levels[row] = level
            errors[row - start] = (left[row] - (level - zero) * scale) / corrections[row, row]
            left[row:stop] -= np.outer(corrections[row, row:stop], errors[row - start])
        left[stop:] -= corrections[start:stop, stop:].T @ errors
    grouped = np.ascontiguousarray(levels.T).reshape(outputs, -1, size)
    by_output, zero_points = np.ascontiguousarray(scales.T), zeros.T.copy()
    return [
        Codes(grid, grouped[start:stop], by_output[start:stop], zero_points[start:stop])
        for start, stop in pairwise(bounds.tolist())
    ]


def _corrections(second_moments: NDArray[np.float64]) -> NDArray[np.float32]:
    """Upper Cholesky factor of the inverse of the damped second moments."""
    damped = second_moments.astype(np.float64).copy()
    diagonal = np.einsum("ii->i", damped)
    diagonal += _DAMPING * float(diagonal.mean()) + np.finfo(np.float64).tiny
    inverse = np.linalg.inv(damped)
    lower = np.linalg.cholesky((inverse + inverse.T) / 2)
    return np.ascontiguousarray(lower.T.astype(np.float32))
