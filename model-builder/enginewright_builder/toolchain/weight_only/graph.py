"""What weight-only compression needs to know of a graph, and to do to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.weight_only.grid import Codes, Weights

_TOKENS_HELD = 1024


@dataclass(frozen=True, slots=True)
class Matrix:
    """A constant that inputs are multiplied by."""

    name: str
    """Node of the product; unique in its graph."""
    module: str
    """Module of the checkpoint."""
    source: str
    """Names the activations it multiplies; matrices that read the same ones share it."""
    weights: Weights
    """[outputs, inputs]."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Statistics of activations over calibration tokens."""

    second: NDArray[np.float64]
    """Mean of x·xᵀ, [inputs, inputs]."""
    magnitudes: NDArray[np.float64]
    """Mean of |x|, [inputs]."""


class WeightGraph(Protocol):
    """A float32 graph of one runtime."""

    fractional: bool
    """Whether the runtime computes with zero points between levels."""

    def matrices(self) -> list[Matrix]:
        """Every product with a constant, in execution order."""

    def tables(self) -> list[Matrix]:
        """What always takes 8 bits: embedding tables [rows, dimension], looked up, not multiplied; `source` is empty.

        Of a decoder also its output head, which is often the same tensor.
        """

    def moments(self, sources: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Moments]:
        """Of the named activations."""

    def probes(self, calibration: Sequence[Feed]) -> Sequence[Feed]:
        """Those that sensitivity is measured on: the ranking settles early, and each layer and format runs them."""

    def answers(self, feeds: Sequence[Feed], replaced: Mapping[str, Weights]) -> NDArray[np.float32]:
        """[answers, dimension], one or more a feed, with some matrices (by name) replaced.

        Called once for every layer and format.
        """

    def store(
        self,
        into: Path,
        packed: Mapping[str, Codes],
        halved: frozenset[str],
        divisors: Mapping[str, Weights],
    ) -> None:
        """Write the graph with matrices and tables as codes or in float16, and activations (by source) divided."""


class Accumulated:
    """Sums over tokens, a few thousand at a time: activations of all rows are never held."""

    def __init__(self) -> None:
        self._second: NDArray[np.float64] | float = 0.0
        self._magnitudes: NDArray[np.float64] | float = 0.0
        self._tokens = 0
        self._waiting: list[NDArray[np.float32]] = []

    def add(self, activations: NDArray[np.float32]) -> None:
        """Count in an array [..., inputs]; it may be overwritten afterwards."""
        self._waiting.append(np.array(activations, np.float32).reshape(-1, activations.shape[-1]))
        if sum(map(len, self._waiting)) >= _TOKENS_HELD:
            self._flush()

    def moments(self) -> Moments:
        """Means so far; at least one array must have been added."""
        self._flush()
        return Moments(np.asarray(self._second / self._tokens), np.asarray(self._magnitudes / self._tokens))

    def _flush(self) -> None:
        if not self._waiting:
            return
        tokens = np.concatenate(self._waiting)
        self._waiting = []
        self._second = self._second + (tokens.T @ tokens).astype(np.float64)
        self._magnitudes = self._magnitudes + np.abs(tokens).sum(0, dtype=np.float64)
        self._tokens += len(tokens)


def by_row(answers: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Answers of several runs as rows: [1, dimension] each, or one row a token where tokens are labelled."""
    return np.concatenate([one.reshape(-1, one.shape[-1]) for one in answers])
