"""Texts to scores of their tokens: tokenise, pad by length, run, lay the tokens of each text side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from enginewright_api.engine_description import TOKEN_LABELS, TOKEN_SCORES, TOKEN_SPANS, EngineDescription
from enginewright_serving.triton.cutting import Cutter, Text
from enginewright_serving.triton.runner import Runner, Vectors
from enginewright_serving.triton.text_encoder import Counts, tensor_batches

PADDING = -1
"""In spans: no token is there."""


@dataclass(frozen=True, slots=True)
class TokenAnswers:
    """Answers of several texts, one entry a text."""

    labels: tuple[str, ...]
    scores: tuple[Vectors, ...]
    """[tokens of the text, labels]."""
    spans: tuple[npt.NDArray[np.int32], ...]
    """[tokens of the text, 2]: characters of the text, from and up to."""
    counts: Counts

    def tensors(self, start: int, stop: int, wanted: Collection[str]) -> dict[str, npt.NDArray[Any]]:
        """Of some of the texts, padded to the longest of them: scores 0, spans -1, labels empty.

        A text of no token has one place of padding, because tensors without elements confuse clients.
        """
        longest = max(1, *(len(one) for one in self.scores[start:stop]))
        scores = np.zeros((stop - start, longest, len(self.labels)), np.float32)
        spans = np.full((stop - start, longest, 2), PADDING, np.int32)
        names = np.full((stop - start, longest), b"", np.object_)
        known = np.array([label.encode() for label in self.labels], np.object_)
        for row, (own, where) in enumerate(zip(self.scores[start:stop], self.spans[start:stop], strict=True)):
            scores[row, : len(own)] = own
            spans[row, : len(own)] = where
            if TOKEN_LABELS in wanted and len(own):
                names[row, : len(own)] = known[own.argmax(axis=1)]
        found = {
            TOKEN_SCORES: scores,
            TOKEN_SPANS: spans,
            TOKEN_LABELS: names,
            "tokens": self.counts[start:stop].reshape(-1, 1),
        }
        return {name: values for name, values in found.items() if name in wanted}


class TokenEncoder:
    """One engine with its tokenizer. Special tokens are run and never answered for."""

    def __init__(self, engine: EngineDescription, tokenizer: Tokenizer, runner: Runner) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=engine.limits.max_input_tokens)
        self._engine = engine
        self._tokenizer = tokenizer
        self._cutter = Cutter(tokenizer, engine.limits.max_input_tokens)
        self._runner = runner

    def answer(self, texts: Sequence[Text]) -> TokenAnswers:
        """Scores and spans of each text's tokens as far as the engine reads it, in the order of the texts."""
        # Not `encode_batch_fast`, which keeps no offsets.
        encodings = self._tokenizer.encode_batch(self._cutter.cut(texts))
        own = [_own_tokens(encoding) for encoding in encodings]
        scores: list[Vectors] = [np.zeros((0, 0), np.float32)] * len(texts)
        columns = {"input_ids": [encoding.ids for encoding in encodings]}
        for group, tensors in tensor_batches(columns, self._engine):
            answered = self._runner.run(tensors)
            for row, index in enumerate(group):
                scores[index] = answered[row, own[index]]
        return TokenAnswers(
            tuple(self._engine.labels),
            tuple(scores),
            tuple(
                np.array(encoding.offsets, np.int32).reshape(-1, 2)[kept]
                for encoding, kept in zip(encodings, own, strict=True)
            ),
            np.array([len(encoding.ids) for encoding in encodings], np.int32),
        )


def _own_tokens(encoding: Encoding) -> npt.NDArray[np.intp]:
    """Places of the tokens that come from the text itself."""
    return np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
