"""Groups texts of different lengths into padded batches so that little is computed for nothing.

Short texts padded to the longest of their batch cost as much as it. Running them apart saves that but costs one more
execution. Cost of a group = EXECUTION_COST_TOKENS + texts × padded length; the split with the least total is found
exactly by dynamic programming over the distinct padded lengths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

PAD_MULTIPLE = 8
"""Lengths are rounded up to this, so that a runtime sees few distinct shapes."""

EXECUTION_COST_TOKENS = 48
"""What one more execution costs, in tokens: MiniLM INT8 takes about 1 ms for a short batch, 25 µs a token after."""


def padded(length: int) -> int:
    """Length rounded up to the multiple."""
    return max(-(-length // PAD_MULTIPLE), 1) * PAD_MULTIPLE


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Indices into `lengths`, grouped; every index once. Groups go from short to long, each padded to its longest."""
    counts = Counter(padded(length) for length in lengths)
    if len(counts) <= 1:
        return [list(range(len(lengths)))] if lengths else []
    sizes = sorted(counts)
    bounds = _cheapest_bounds(sizes, [counts[size] for size in sizes])
    order = {size: group for group, (start, stop) in enumerate(bounds) for size in sizes[start:stop]}
    result: list[list[int]] = [[] for _ in bounds]
    for index, length in enumerate(lengths):
        result[order[padded(length)]].append(index)
    return result


def _cheapest_bounds(sizes: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of `sizes` (ascending) that together cost least."""
    best = [0.0]
    split = [0]
    for stop in range(1, len(sizes) + 1):
        texts = 0
        cheapest, at = float("inf"), 0
        for start in range(stop - 1, -1, -1):
            texts += counts[start]
            cost = best[start] + EXECUTION_COST_TOKENS + texts * sizes[stop - 1]
            if cost < cheapest:
                cheapest, at = cost, start
        best.append(cheapest)
        split.append(at)
    bounds = []
    stop = len(sizes)
    while stop:
        bounds.append((split[stop], stop))
        stop = split[stop]
    return bounds[::-1]
