"""Texts to scores of their words: the server scores tokens, and a word's first token speaks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from enginewright_api.engine_description import TOKEN_SCORES, TOKEN_SPANS
from enginewright_api.errors import DeterministicError
from enginewright_builder.datasets.rows import Text
from enginewright_builder.datasets.words import UNREAD, first_tokens
from enginewright_builder.servers.asking import Answers, Client
from enginewright_builder.servers.server import Server

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NO_TOKEN = -1


class TaggingClient(Client):
    """One connection to a server that labels tokens."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, TOKEN_SCORES, TOKEN_SPANS)

    def ask_all(self, texts: Sequence[Text], *, batch: int) -> Answers:
        """One row a word, words of all texts in order; requests as `Client.ask_all` makes them.

        Raises DeterministicError EngineFailed when the server gives no token for a word: texts are to be cut to what
        the engine reads before (`datasets.judged`).
        """
        import numpy as np

        found: list[Any] = [None] * len(texts)
        tokens = np.zeros(len(texts), np.int32)
        for chunk in self.chunks(texts, batch):
            told = self.infer([texts[index] for index in chunk])
            for row, index in enumerate(chunk):
                found[index] = self._of_words(str(texts[index]), told[TOKEN_SCORES][row], told[TOKEN_SPANS][row])
            tokens[chunk] = told["tokens"].reshape(-1)
        return Answers(np.concatenate(found), tokens)

    def _of_words(self, text: str, scores: NDArray[np.float32], spans: NDArray[np.int32]) -> NDArray[np.float32]:
        there = spans[:, 1] != _NO_TOKEN
        first = first_tokens(text, spans[there])
        if (first == UNREAD).any():
            word = text.split(" ")[int((first == UNREAD).argmax())]
            raise DeterministicError(
                "EngineFailed", f"engine {self.name} gave no token for the word {word[:60]!r} of {text[:60]!r}"
            )
        chosen: NDArray[np.float32] = scores[there][first]
        return chosen
