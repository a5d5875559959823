"""Texts to vectors: tokenise, pad by length, run, put back in order. Knows nothing of Triton."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from enginewright_api.engine_description import EngineDescription
from enginewright_serving.model_config import output_name
from enginewright_serving.triton.cutting import Cutter, Text
from enginewright_serving.triton.padding import groups, padded
from enginewright_serving.triton.runner import Runner, Tensors, Vectors

Counts = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TextAnswers:
    """Answers of several texts, one row a text."""

    output: str
    vectors: Vectors
    counts: Counts

    def tensors(self, start: int, stop: int, wanted: Collection[str]) -> dict[str, npt.NDArray[Any]]:
        """Of some of the texts."""
        found = {self.output: self.vectors[start:stop], "tokens": self.counts[start:stop].reshape(-1, 1)}
        return {name: values for name, values in found.items() if name in wanted}


class TextEncoder:
    """One engine with its tokenizer."""

    def __init__(self, engine: EngineDescription, tokenizer: Tokenizer, runner: Runner) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=engine.limits.max_input_tokens)
        self._engine = engine
        self._tokenizer = tokenizer
        self._cutter = Cutter(tokenizer, engine.limits.max_input_tokens)
        self._runner = runner

    def encode(self, texts: Sequence[Text]) -> tuple[Vectors, Counts]:
        """[texts, dimension] and the number of tokens of each text, or of both texts of a pair, as run."""
        encodings = self._tokenizer.encode_batch_fast(self._cutter.cut(texts))
        lengths = [len(encoding.ids) for encoding in encodings]
        columns = {"input_ids": [encoding.ids for encoding in encodings]}
        if any(isinstance(text, tuple) for text in texts):
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        vectors = np.empty((len(texts), self._engine.output_dimension), np.float32)
        for group, tensors in tensor_batches(columns, self._engine):
            vectors[group] = self._runner.run(tensors)
        return vectors, np.array(lengths, np.int32)

    def answer(self, texts: Sequence[Text]) -> TextAnswers:
        """As `encode`, ready to be divided among requests."""
        return TextAnswers(output_name(self._engine.task), *self.encode(texts))


def tensor_batches(
    columns: Mapping[str, Sequence[Sequence[int]]], engine: EngineDescription
) -> Iterator[tuple[list[int], Tensors]]:
    """Which texts run together, and their tensors [texts, width]: padded, but hardly more than needed."""
    lengths = [len(ids) for ids in columns["input_ids"]]
    for group in groups(lengths):
        width = min(padded(max(lengths[index] for index in group)), engine.limits.max_input_tokens)
        sizes = np.array([lengths[index] for index in group])
        tensors = {"attention_mask": (np.arange(width) < sizes[:, None]).astype(np.int64)}
        for name, values in columns.items():
            filler = engine.pad_token_id if name == "input_ids" else 0
            tensors[name] = np.full((len(group), width), filler, np.int64)
            for row, index in enumerate(group):
                tensors[name][row, : lengths[index]] = values[index]
        yield group, tensors
