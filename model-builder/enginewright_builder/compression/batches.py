"""Rows to token batches: endless, of similar lengths, in an order that follows from the seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Encoding, Tokenizer

from enginewright_api.errors import DeterministicError
from enginewright_builder.datasets.rows import Row
from enginewright_builder.datasets.words import UNREAD, first_tokens, text_tokens

NO_LABEL = -100
"""What torch's cross entropy leaves out."""

Labels = int | list[int]
"""Class of a row, or of each of its tokens."""

_POOL_BATCHES = 16
"""Rows are sorted by length within this many batches: padding is saved, the order stays random enough."""
_JITTER = 0.25
"""Lengths are taken up to so much too long while sorting, or small sets would give the same batches in every pass."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's inputs, int64 [batch, tokens]."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    """1 for real tokens, 0 for padding."""
    labels: torch.Tensor | None = None
    """Class of each row, int64 [batch], -100 where a row has none; where rows have labels of words, class of each
    token, int64 [batch, tokens], -100 but for the first of each word. None when no row has one."""
    token_type_ids: torch.Tensor | None = None
    """1 for the tokens of the second text; None when the rows are single texts."""
    text_mask: torch.Tensor | None = None
    """1 for the texts' own tokens, 0 for special ones and padding; None counts all that `attention_mask` has."""

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model is called with."""
        found = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return found if self.token_type_ids is None else {**found, "token_type_ids": self.token_type_ids}


def batches(
    rows: Sequence[Row], tokenizer_folder: Path, *, max_tokens: int, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Endless batches of a checkpoint folder's tokenizer; equal arguments give equal batches.

    Each pass over the rows takes another order. Labels are looked up in config.json's label2id (class names), or taken
    as class numbers; those of words go to the first token of each.

    Raises DeterministicError InvalidDataset: no rows, a label that the model does not know.
    """
    if not rows:
        raise DeterministicError(
            "InvalidDataset", "the training rows are empty; give optimization.distillation.dataset"
        )
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    config = json.loads((tokenizer_folder / "config.json").read_text(encoding="utf-8"))
    encodings = tokenizer.encode_batch(
        [row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows]
    )
    by_word = any(row.word_labels for row in rows)
    labels: list[Labels] = [
        _classes(row, encoding, config) if by_word else _class(row.label, config)
        for row, encoding in zip(rows, encodings, strict=True)
    ]
    kept = [index for index, encoding in enumerate(encodings) if encoding.ids]
    return _endless([encodings[i] for i in kept], [labels[i] for i in kept], config, batch_size, seed)


def singles(rows: Sequence[Row]) -> list[Row]:
    """Both texts of pairs as rows of their own: embedding models take one text at a time."""
    texts = dict.fromkeys(text for row in rows for text in (row.text, row.text_pair) if text is not None)
    return [Row(text) for text in texts]


def _endless(
    encodings: list[Encoding], labels: list[Labels], config: dict[str, object], batch_size: int, seed: int
) -> Iterator[Batch]:
    pad = int(str(config.get("pad_token_id") or 0))
    order = torch.Generator().manual_seed(seed)
    labelled = any(label != NO_LABEL for label in labels)
    own = [[1 - special for special in encoding.special_tokens_mask] for encoding in encodings]
    paired = any(any(encoding.type_ids) for encoding in encodings) and int(str(config.get("type_vocab_size") or 0)) > 1
    while True:
        for group in _epoch([len(encoding.ids) for encoding in encodings], batch_size, order):
            longest = max(len(encodings[index].ids) for index in group)

            def padded(columns: list[list[int]], filler: int, longest: int = longest) -> torch.Tensor:
                return torch.tensor([column + [filler] * (longest - len(column)) for column in columns])

            yield Batch(
                padded([encodings[index].ids for index in group], pad),
                padded([encodings[index].attention_mask for index in group], 0),
                _tensor([labels[index] for index in group], longest) if labelled else None,
                padded([encodings[index].type_ids for index in group], 0) if paired else None,
                padded([own[index] for index in group], 0),
            )


def _epoch(lengths: list[int], batch_size: int, order: torch.Generator) -> Iterator[list[int]]:
    """Row numbers of each batch of one pass."""
    shuffled = torch.randperm(len(lengths), generator=order).tolist()
    pool = batch_size * _POOL_BATCHES
    for start in range(0, len(shuffled), pool):
        drawn = shuffled[start : start + pool]
        stretch = 1.0 + _JITTER * torch.rand(len(drawn), generator=order)
        sizes = stretch * torch.tensor([lengths[index] for index in drawn])
        alike = [drawn[at] for at in torch.argsort(sizes, stable=True).tolist()]
        groups = [alike[at : at + batch_size] for at in range(0, len(alike), batch_size)]
        for number in torch.randperm(len(groups), generator=order).tolist():
            yield groups[number]


def _tensor(labels: list[Labels], longest: int) -> torch.Tensor:
    """One class a row, or one a token, padded."""
    return torch.tensor(
        [label if isinstance(label, int) else label + [NO_LABEL] * (longest - len(label)) for label in labels]
    )


def _classes(row: Row, encoding: Encoding, config: dict[str, object]) -> list[int]:
    """One a token; all without a class for a row without labels."""
    found = [NO_LABEL] * len(encoding.ids)
    if row.word_labels:
        tokens = text_tokens(encoding)
        first = first_tokens(row.text, [encoding.offsets[token] for token in tokens])
        for label, at in zip(row.word_labels, first, strict=True):
            if at != UNREAD:
                found[tokens[at]] = _class(label, config)
    return found


def _class(label: str | None, config: dict[str, object]) -> int:
    if label is None:
        return NO_LABEL
    names = config.get("label2id")
    if isinstance(names, dict) and label in names:
        return int(names[label])
    classes = len(names) if isinstance(names, dict) else int(str(config.get("num_labels") or 2))
    if label.isdecimal() and int(label) < classes:
        return int(label)
    known = ", ".join(sorted(names)) if isinstance(names, dict) else f"0 to {classes - 1}"
    raise DeterministicError("InvalidDataset", f"training rows: label {label!r} is none of the model's ({known})")
