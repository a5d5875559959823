"""Bits by layer: each layer's harm is measured alone, then the least total harm within the budget is found exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.weight_only.graph import Matrix, WeightGraph
from enginewright_builder.toolchain.weight_only.grid import Codes, Weights

BITS = {Format.INT2: 2, Format.INT4: 4, Format.INT8: 8, Format.FP16: 16}
"""Bits of one weight."""
Candidates = dict[Format, dict[str, Codes]]
"""Codes by matrix for each format; none for FP16."""

_BUDGET_UNITS = 20_000
"""Resolution of the budget; sizes of layers share large factors, so that it is exact in practice."""


def assign(
    graph: WeightGraph,
    matrices: Sequence[Matrix],
    candidates: Candidates,
    average_bits: float,
    calibration: Sequence[Feed],
) -> tuple[dict[str, Format], list[dict[str, object]]]:
    """Format of each matrix (by name), and the sensitivity of each in each format.

    Sensitivity is the mean over rows, or tokens where these are labelled, of ‖y − y₀‖² / ‖y₀‖², y₀ the float32 graph's
    answer, with one matrix quantised.
    That harms of layers add up is an assumption; it holds while they are small. Raises DeterministicError when the
    budget is below the smallest format.
    """
    formats = sorted(candidates, key=lambda one: BITS[one])
    if average_bits < BITS[formats[0]]:
        raise DeterministicError(
            "BudgetTooSmall",
            f"optimization.quantization.mixed.averageBits: {average_bits:g} is below {formats[0].value}, the smallest"
            " of mixed.formats",
        )
    rows = graph.probes(calibration)
    plain = graph.answers(rows, {})
    errors = np.array(
        [
            [_error(graph.answers(rows, {matrix.name: _values(matrix, candidates[one])}), plain) for one in formats]
            for matrix in matrices
        ]
    )
    sizes = [int(matrix.weights.size) for matrix in matrices]
    picked = cheapest(errors, sizes, [BITS[one] for one in formats], average_bits)
    sensitivity: list[dict[str, object]] = [
        {"module": matrix.module, "format": one.value, "error": float(f"{errors[row, column]:.6g}")}
        for row, matrix in enumerate(matrices)
        for column, one in enumerate(formats)
    ]
    return {matrix.name: formats[pick] for matrix, pick in zip(matrices, picked, strict=True)}, sensitivity


def cheapest(errors: NDArray[np.float64], sizes: Sequence[int], bits: Sequence[int], average_bits: float) -> list[int]:
    """For each layer the index into `bits` so that the sum of errors [layers, formats] is least within the budget.

    A multiple-choice knapsack, solved by dynamic programming over the bits spent; the budget is average_bits × weights.
    Sizes are rounded up to the resolution, so that the budget is never exceeded. Equal sums go to fewer bits.
    """
    costs = [[size * one for one in bits] for size in sizes]
    budget = math.floor(average_bits * sum(sizes))
    unit = max(math.gcd(*(cost for row in costs for cost in row)), -(-budget // _BUDGET_UNITS))
    # What every layer spends in the smallest format is spent anyway; only what is above it is rounded and chosen.
    least = sum(row[0] for row in costs)
    extra = [[-(-(cost - row[0]) // unit) for cost in row] for row in costs]
    capacity = (budget - least) // unit
    best = np.zeros(capacity + 1)
    choices = np.zeros((len(sizes), capacity + 1), np.int64)
    for layer, spent in enumerate(extra):
        options = np.full((len(bits), capacity + 1), np.inf)
        for index, more in enumerate(spent):
            if more <= capacity:
                options[index, more:] = best[: capacity + 1 - more] + errors[layer, index]
        choices[layer] = options.argmin(0)
        best = options.min(0)
    left = int(np.flatnonzero(best == best.min())[0])
    picked = []
    for layer in range(len(sizes) - 1, -1, -1):
        pick = int(choices[layer, left])
        picked.append(pick)
        left -= extra[layer][pick]
    return picked[::-1]


def _values(matrix: Matrix, codes: Mapping[str, Codes]) -> Weights:
    found = codes.get(matrix.name)
    return found.weights() if found is not None else matrix.weights.astype(np.float16).astype(np.float32)


def _error(answers: NDArray[np.float32], plain: NDArray[np.float32]) -> float:
    gone = ((answers - plain).astype(np.float64) ** 2).sum(1)
    return float((gone / (plain.astype(np.float64) ** 2).sum(1)).mean())
