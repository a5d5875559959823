"""Rows with labels of words, as they are judged on: cut to what an engine reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginewright_api.recipe import Task
from enginewright_builder.datasets.draw import Drawn
from enginewright_builder.datasets.rows import Row, invalid
from enginewright_builder.datasets.words import UNREAD, class_numbers, first_tokens, text_tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 1024


def check_kind(drawn: Drawn, task: Task) -> None:
    """TokenClassification has labels of words, other tasks of texts. Raises DeterministicError InvalidDataset."""
    wanted = task is Task.TOKEN_CLASSIFICATION
    for row in drawn.rows:
        if wanted and row.label is not None:
            raise invalid(
                drawn.name,
                f"the text {row.text[:60]!r} has one label as a whole; task {task.value} needs lists in columns.text"
                " and columns.label, one label a word",
            )
        if task is Task.CLASSIFICATION and row.word_labels:
            raise invalid(
                drawn.name, f"line {row.line}: has a label for each word; task {task.value} needs one for the text"
            )


def judged(drawn: Drawn, labels: Sequence[str], tokenizer_folder: Path, *, max_tokens: int) -> Drawn:
    """Rows cut to the words that an engine of these limits reads; rows without any are left out.

    What goes has no token within the limit, so an engine reads the same of both. Raises DeterministicError
    InvalidDataset for a row without labels of words, a label that is none of the model's, or when nothing is left.
    """
    from tokenizers import Tokenizer

    check_kind(drawn, Task.TOKEN_CLASSIFICATION)
    for row in drawn.rows:
        class_numbers(row, labels, drawn.name)
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    kept: list[Row] = []
    for start in range(0, len(drawn.rows), _CHUNK):
        rows = drawn.rows[start : start + _CHUNK]
        for row, encoding in zip(rows, tokenizer.encode_batch([row.text for row in rows]), strict=True):
            spans = [encoding.offsets[number] for number in text_tokens(encoding)]
            kept += _read(row, first_tokens(row.text, spans))
    if not kept:
        raise invalid(drawn.name, f"the tokenizer reads no word of its {len(drawn.rows)} rows; give rows of text")
    return Drawn(drawn.name, tuple(kept))


def _read(row: Row, first: NDArray[np.int64]) -> list[Row]:
    if (first != UNREAD).all():
        return [row]
    pairs = [pair for pair, at in zip(zip(row.words, row.word_labels, strict=True), first, strict=True) if at != UNREAD]
    if not pairs:
        return []
    words, labels = zip(*pairs, strict=True)
    return [replace(row, text=" ".join(words), word_labels=labels)]
