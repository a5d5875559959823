"""From settings to codes for every matrix of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format, Granularity, Quantization, QuantizationMethod
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.scopes import excluded_nodes
from enginewright_builder.toolchain.weight_only.awq import awq
from enginewright_builder.toolchain.weight_only.gptq import gptq
from enginewright_builder.toolchain.weight_only.graph import Matrix, Moments, WeightGraph
from enginewright_builder.toolchain.weight_only.grid import Codes, Grid, Weights, round_to_nearest
from enginewright_builder.toolchain.weight_only.mixed import BITS, Candidates, assign

_MOMENTS_BYTES = 512 * 2**20
"""Second moments held at a time; more layers mean more passes over the calibration rows."""


def compress(
    graph: WeightGraph, quantization: Quantization, calibration: Sequence[Feed], into: Path
) -> dict[str, object]:
    """Store the graph with its matrices in few bits and its embedding tables in 8; what is excluded stays float32.

    Tables are looked up, not multiplied, and their error goes into every token: 4 bits would cost much and gain bytes
    only. Result: excluded, averageBits (of the matrices, levels alone), storedBits (with scales and zero points);
    with format Mixed also bits by module and the sensitivity that they follow from. Raises DeterministicError for a
    group size that does not divide the inputs of a matrix, and for a budget below every format.
    """
    matrices, tables = graph.matrices(), graph.tables()
    excluded = excluded_nodes({one.name: one.module for one in (*matrices, *tables)}, quantization.exclude)
    matrices = [matrix for matrix in matrices if matrix.name not in excluded]
    group = quantization.group_size if quantization.granularity is Granularity.PER_GROUP else None
    _must_divide(matrices, group)
    packed: dict[str, Codes] = {
        table.name: round_to_nearest(table.weights, Grid(8)) for table in tables if table.name not in excluded
    }
    halved: frozenset[str] = frozenset()
    divisors: dict[str, Weights] = {}
    told: dict[str, object] = {"excluded": excluded}
    if quantization.mixed is not None:
        candidates: Candidates = {Format.FP16: {}} if Format.FP16 in quantization.mixed.formats else {}
        for wanted in quantization.mixed.formats:
            if wanted is not Format.FP16:
                grid = Grid(BITS[wanted], group, graph.fractional)
                candidates[wanted] = _codes(graph, matrices, grid, quantization.method, calibration)[0]
        chosen, sensitivity = assign(graph, matrices, candidates, quantization.mixed.average_bits, calibration)
        packed |= {name: candidates[one][name] for name, one in chosen.items() if one is not Format.FP16}
        halved = frozenset(name for name, one in chosen.items() if one is Format.FP16)
        told["sensitivity"] = sensitivity
        told["bits"] = {matrix.module: BITS[chosen[matrix.name]] for matrix in matrices}
    else:
        grid = Grid(BITS[quantization.format], group, graph.fractional)
        found, divisors = _codes(graph, matrices, grid, quantization.method, calibration)
        packed |= found
    graph.store(into, packed, halved, divisors)
    return told | _bits(matrices, packed)


def _codes(
    graph: WeightGraph, matrices: Sequence[Matrix], grid: Grid, method: QuantizationMethod, calibration: Sequence[Feed]
) -> tuple[dict[str, Codes], dict[str, Weights]]:
    """Codes by matrix, divisors by source."""
    if method is QuantizationMethod.MIN_MAX:
        return {matrix.name: round_to_nearest(matrix.weights, grid) for matrix in matrices}, {}
    codes: dict[str, Codes] = {}
    divisors: dict[str, Weights] = {}
    for moments, readers in _by_source(graph, matrices, calibration):
        weights = [reader.weights for reader in readers]
        if method is QuantizationMethod.GPTQ:
            found = gptq(weights, moments.second, grid)
        else:
            found, divisor = awq(weights, moments, grid)
            if not np.all(divisor == 1.0):
                divisors[readers[0].source] = divisor
        codes |= {reader.name: one for reader, one in zip(readers, found, strict=True)}
    return codes, divisors


def _by_source(
    graph: WeightGraph, matrices: Sequence[Matrix], calibration: Sequence[Feed]
) -> Iterator[tuple[Moments, list[Matrix]]]:
    """Moments of each source with the matrices that read it, as few at a time as memory asks for."""
    readers: dict[str, list[Matrix]] = {}
    for matrix in matrices:
        readers.setdefault(matrix.source, []).append(matrix)
    waiting: list[str] = []
    held = 0
    for source, reading in readers.items():
        size = 8 * reading[0].weights.shape[1] ** 2
        if waiting and held + size > _MOMENTS_BYTES:
            yield from _measured(graph, waiting, readers, calibration)
            waiting, held = [], 0
        waiting.append(source)
        held += size
    if waiting:
        yield from _measured(graph, waiting, readers, calibration)


def _measured(
    graph: WeightGraph, sources: list[str], readers: Mapping[str, list[Matrix]], calibration: Sequence[Feed]
) -> Iterator[tuple[Moments, list[Matrix]]]:
    moments = graph.moments(sources, calibration)
    for source in sources:
        yield moments.pop(source), readers[source]


def _must_divide(matrices: Sequence[Matrix], group: int | None) -> None:
    for matrix in matrices:
        inputs = matrix.weights.shape[1]
        if group is not None and inputs % group:
            raise DeterministicError(
                "GroupSizeDoesNotDivide",
                f"optimization.quantization.groupSize: {group} does not divide the {inputs} inputs of {matrix.module};"
                " give one that does, or exclude the module",
            )


def _bits(matrices: Sequence[Matrix], packed: Mapping[str, Codes]) -> dict[str, object]:
    """Averages over the matrices that are not excluded."""
    weights = levels = stored = 0
    for matrix in matrices:
        count = int(matrix.weights.size)
        codes = packed.get(matrix.name)
        bits = count * (16 if codes is None else codes.grid.bits)
        weights, levels = weights + count, levels + bits
        if codes is not None:
            bits += codes.scales.size * (16 + codes.grid.zero_point_bits)
        stored += bits
    if not weights:
        raise DeterministicError(
            "NothingToQuantize",
            "optimization.quantization.exclude: leaves no matrix to quantise; exclude fewer modules",
        )
    return {"averageBits": round(levels / weights, 4), "storedBits": round(stored / weights, 4)}
