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

NO_LABEL = -100
"""What torch's cross entropy leaves out."""

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
    """Class of each row, int64 [batch], -100 where a row has none; None when no row has one."""
    token_type_ids: torch.Tensor | None = None
    """1 for the tokens of the second text; None when the rows are single texts."""

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model is called with."""
        found = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return found if self.token_type_ids is None else {**found, "token_type_ids": self.token_type_ids}


def batches(
    rows: Sequence[Row], tokenizer_folder: Path, *, max_tokens: int, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Endless batches of a checkpoint folder's tokenizer; equal arguments give equal batches.

    Each pass over the rows takes another order. Labels are looked up in config.json's label2id (class names), or taken
    as class numbers.

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
    labels = [_class(row, config) for row in rows]
    kept = [index for index, encoding in enumerate(encodings) if encoding.ids]
    return _endless([encodings[i] for i in kept], [labels[i] for i in kept], config, batch_size, seed)


def singles(rows: Sequence[Row]) -> list[Row]:
    """Both texts of pairs as rows of their own: embedding models take one text at a time."""
    texts = dict.fromkeys(text for row in rows for text in (row.text, row.text_pair) if text is not None)
    return [Row(text) for text in texts]


def _endless(
    encodings: list[Encoding], labels: list[int], config: dict[str, object], batch_size: int, seed: int
) -> Iterator[Batch]:
    pad = int(str(config.get("pad_token_id") or 0))
    order = torch.Generator().manual_seed(seed)
    labelled = any(label != NO_LABEL for label in labels)
    paired = any(any(encoding.type_ids) for encoding in encodings) and int(str(config.get("type_vocab_size") or 0)) > 1
    while True:
        for group in _epoch([len(encoding.ids) for encoding in encodings], batch_size, order):
            longest = max(len(encodings[index].ids) for index in group)

            def padded(columns: list[list[int]], filler: int, longest: int = longest) -> torch.Tensor:
                return torch.tensor([column + [filler] * (longest - len(column)) for column in columns])

            yield Batch(
                padded([encodings[index].ids for index in group], pad),
                padded([encodings[index].attention_mask for index in group], 0),
                torch.tensor([labels[index] for index in group]) if labelled else None,
                padded([encodings[index].type_ids for index in group], 0) if paired else None,
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


def _class(row: Row, config: dict[str, object]) -> int:
    if row.label is None:
        return NO_LABEL
    names = config.get("label2id")
    if isinstance(names, dict) and row.label in names:
        return int(names[row.label])
    classes = len(names) if isinstance(names, dict) else int(str(config.get("num_labels") or 2))
    if row.label.isdecimal() and int(row.label) < classes:
        return int(row.label)
    known = ", ".join(sorted(names)) if isinstance(names, dict) else f"0 to {classes - 1}"
    raise DeterministicError("InvalidDataset", f"training rows: label {row.label!r} is none of the model's ({known})")
