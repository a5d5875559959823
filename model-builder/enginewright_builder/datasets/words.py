"""Words and tokens: which token speaks for a word, and which class a word's label is.

The first token of a word carries the word's label, as transformers' token-classification examples and the checkpoints
made with them have it. Words are found again by their characters, so it is the same for an engine behind a server,
which is given text, as for a tokenizer that is given words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enginewright_api.recipe import Task
from enginewright_builder.datasets.rows import Row, invalid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding

    Indices = NDArray[np.int64]

UNREAD = -1


def text_tokens(encoding: Encoding) -> list[int]:
    """Numbers of the tokens that come from the text, in order: neither special ones nor padding."""
    return [number for number, special in enumerate(encoding.special_tokens_mask) if not special]


def first_tokens(text: str, spans: Sequence[tuple[int, int]]) -> Indices:
    """Per word of a text, which of its tokens comes first; UNREAD for a word that has none.

    `spans` are the characters [start, stop) of each token of the text. A token of the space before a word is the
    word's: tokenizers that write words with it split words in the same way when they are given as a list.
    """
    import numpy as np

    lengths = np.array([len(word) for word in text.split(" ")], np.int64)
    stops = np.cumsum(lengths + 1) - 1
    starts = stops - lengths
    found = np.asarray(spans, np.int64).reshape(-1, 2)
    # Not every tokenizer's spans rise: several tokens of one letter share its characters.
    first = np.searchsorted(np.maximum.accumulate(found[:, 1]), starts, side="left")
    there = first < len(found)
    there[there] = found[first[there], 0] < stops[there]
    return np.where(there & (lengths > 0), first, UNREAD)


def class_numbers(row: Row, labels: Sequence[str], name: str) -> list[int]:
    """The model's class of each word; labels may be written as names or as the model's numbers.

    Raises DeterministicError InvalidDataset when the row has none, or one that the model does not know.
    """
    if not row.word_labels:
        raise invalid(
            name,
            f"the text {row.text[:60]!r} has no labels of words; task {Task.TOKEN_CLASSIFICATION.value} needs lists in"
            " columns.text and columns.label",
        )
    known = {str(number): number for number in range(len(labels))}
    known |= {label: number for number, label in enumerate(labels)}
    unknown = next((label for label in row.word_labels if label not in known), None)
    if unknown is not None:
        where = f"line {row.line}" if row.line else f"the text {row.text[:60]!r}"
        listed = ", ".join(labels)[:200]
        raise invalid(name, f"{where}: label {unknown[:80]!r} is none of the model's ({listed})")
    return [known[label] for label in row.word_labels]
