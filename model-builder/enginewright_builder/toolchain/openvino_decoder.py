"""Weights of a text generation graph: stateful, its head often the embedding table itself, a distribution a token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.openvino_weights import Swap, matrix_of, moments_of, products, store
from enginewright_builder.toolchain.openvino_weights import tables as lookup_tables
from enginewright_builder.toolchain.weight_only import Codes, Matrix, Moments
from enginewright_builder.toolchain.weight_only.grid import Weights

if TYPE_CHECKING:
    import openvino

_PROBES, _PROBE_TOKENS = 4, 48
"""Rows and tokens that sensitivity is measured on. Every token is an answer, so a few rows are many answers."""


class OpenVINODecoderWeights:
    """A float32 stateful IR, as Optimum exports it.

    Zero points are fractional: the CPU plugin takes them as float32 in its compressed products. It then leaves
    activations in float32, where whole zero points would let it quantise them as they come.
    """

    fractional = True

    def __init__(self, graph: Path) -> None:
        self._path = graph
        self._swap: Swap | None = None

    def matrices(self) -> list[Matrix]:
        """Every product with a constant but the last, which is the output head."""
        return [matrix_of(node) for node in products(self._read())[:-1]]

    def tables(self) -> list[Matrix]:
        """Embedding tables and the output head: the ends of the network are what few bits hurt most."""
        model = self._read()
        return [*lookup_tables(model), *(matrix_of(node) for node in products(model)[-1:])]

    def moments(self, sources: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Moments]:
        """Of the named activations, row by row."""
        return moments_of(self._read(), sources, lambda request: _runs(request, feeds))

    def probes(self, calibration: Sequence[Feed]) -> Sequence[Feed]:
        """The beginnings of a few rows."""
        return [{name: values[:, :_PROBE_TOKENS] for name, values in feed.items()} for feed in calibration[:_PROBES]]

    def answers(self, feeds: Sequence[Feed], replaced: Mapping[str, Weights]) -> NDArray[np.float32]:
        """Square roots of the next token's probabilities, [tokens, vocabulary], with some matrices replaced.

        The squared distance of two such rows is twice their squared Hellinger distance, to first order half their
        Kullback-Leibler divergence: what perplexity notices. Logits themselves may all move together and mean nothing.
        """
        if self._swap is None:
            model = self._read()
            self._swap = Swap(model, products(model)[:-1])
        with self._swap.replaced(replaced) as request:
            logits = [np.array(run.get_tensor("logits").data) for run in _runs(request, feeds)]
        return _root_probabilities(np.concatenate([one.reshape(-1, one.shape[-1]) for one in logits]))

    def store(
        self, into: Path, packed: Mapping[str, Codes], halved: frozenset[str], divisors: Mapping[str, Weights]
    ) -> None:
        """Write the IR. A head that is the embedding table stays one tensor."""
        store(self._read(), into, packed, halved, divisors)

    def _read(self) -> openvino.Model:
        import openvino as ov

        return ov.Core().read_model(self._path)


def _runs(request: Any, feeds: Sequence[Feed]) -> Iterator[Any]:
    """Each row on its own: the graph remembers keys and values, and asks which beam each row continues."""
    for feed in feeds:
        request.reset_state()
        request.infer({**feed, "beam_idx": np.zeros(len(feed["input_ids"]), np.int32)})
        yield request


def _root_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = logits - logits.max(-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(-1, keepdims=True)
    return np.asarray(np.sqrt(logits, out=logits))
