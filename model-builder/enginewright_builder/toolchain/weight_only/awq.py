"""AWQ: inputs that carry large activations get finer weights; the activations are divided by what they were scaled.

Lin, Tang, Tang, Yang, Dang, Han (2023), AWQ: Activation-aware Weight Quantization: scale = mean|x|^α, α searched so
that the products change least, then ranges clipped by the same measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from enginewright_builder.toolchain.weight_only.graph import Moments
from enginewright_builder.toolchain.weight_only.grid import Codes, Grid, Weights, round_to_nearest

_ALPHAS = np.arange(0.0, 1.0, 0.1)
_SEARCH_OUTPUTS = 256
"""Outputs of a matrix that the search looks at, evenly spread: α is one figure for all of them."""


def awq(weights: Sequence[Weights], moments: Moments, grid: Grid) -> tuple[list[Codes], Weights]:
    """Codes of matrices [outputs, inputs] that read the same activations, and what to divide these by, [inputs].

    The search measures ‖(W − Ŵ)·x‖² over the calibration tokens, exactly, through their second moments.
    """
    some = [matrix[:: max(len(matrix) // _SEARCH_OUTPUTS, 1)] for matrix in weights]
    second = moments.second.astype(np.float32)

    def harm(alpha: float) -> float:
        scales = _scales(moments.magnitudes, alpha)
        gone = [round_to_nearest(matrix * scales, grid).weights() / scales - matrix for matrix in some]
        return sum(float(np.einsum("oi,oi->", one @ second, one)) for one in gone)

    scales = _scales(moments.magnitudes, min((float(alpha) for alpha in _ALPHAS), key=harm))
    importance = np.diag(moments.second) / scales.astype(np.float64) ** 2
    return [round_to_nearest(matrix * scales, grid, importance) for matrix in weights], scales


def _scales(magnitudes: NDArray[np.float64], alpha: float) -> Weights:
    """Around one, so that neither weights nor activations leave their usual size."""
    scales = np.maximum(magnitudes, 1e-4 * max(float(magnitudes.max()), 1e-12)) ** alpha
    return np.asarray(scales / np.sqrt(scales.max() * scales.min()), np.float32)
