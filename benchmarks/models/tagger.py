"""A model that labels words: `Negative`, `Positive` or `O`, from the builtin set `valence-en`.

    python -m benchmarks.models.tagger [--steps N]

MiniLM with a token-classification head: first the head on frozen states, which hold much of what people find good or
bad already, then all of it. F1 is on rows that were not learnt from.

Checkpoints are kept below $XDG_CACHE_HOME/enginewright/models by what they follow from.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from tokenizers import Tokenizer
from torch import nn

from benchmarks.models.classifier import minilm
from benchmarks.models.places import model_folder
from enginewright_api.identity import sha256_hex
from enginewright_api.operation_spec import Metric
from enginewright_api.recipe import Task
from enginewright_builder.compression.batches import NO_LABEL, Batch, batches
from enginewright_builder.compression.imitation import answer, label_loss
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import Tell, quiet, reproducible, train
from enginewright_builder.datasets import valence
from enginewright_builder.datasets.rows import Row
from enginewright_builder.datasets.words import first_tokens, text_tokens
from enginewright_builder.gate.tagging import measure_tagging

STEPS = 300
_MAX_TOKENS = 64
_BATCH = 16
_HEAD_STEPS, _HEAD_TEXTS, _HEAD_WORDS = 300, 640, 1024
_HEAD_RATE, _RATE = 1e-2, 1e-4
_VERSION = 1
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def trained_tagger(*, steps: int = STEPS, tell: Tell = quiet) -> Path:
    """Checkpoint folder (BertForTokenClassification), made once."""
    content = {"steps": steps, "version": _VERSION, "torch": importlib.metadata.version("torch")}
    with model_folder("tagger-minilm", content) as (folder, made):
        if not made:
            _train(folder, steps, tell)
    return folder


def scores(folder: Path, rows: Sequence[Row], *, max_tokens: int = _MAX_TOKENS) -> Any:
    """Straight from PyTorch, one text at a time: scores of each word's first token [words of all rows, labels]."""
    model = load_model(folder, Task.TOKEN_CLASSIFICATION)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    found = []
    for row in rows:
        encoding = tokenizer.encode(row.text)
        own = text_tokens(encoding)
        with torch.no_grad():
            said = model(input_ids=torch.tensor([encoding.ids])).logits[0].numpy()
        found.append(said[own][first_tokens(row.text, [encoding.offsets[token] for token in own])])
    return np.concatenate(found)


def _train(folder: Path, steps: int, tell: Tell) -> None:
    names = {label: number for number, label in enumerate(valence.LABELS)}
    drawn = sorted(valence.calibration_rows(), key=lambda row: sha256_hex(row.text.encode()))
    with reproducible(0):
        config: Any = transformers.BertConfig.from_pretrained(
            minilm(),
            id2label={number: label for label, number in names.items()},
            label2id=names,
            architectures=["BertForTokenClassification"],
        )
        model = transformers.BertForTokenClassification.from_pretrained(minilm(), config=config)
        _save(model, folder)  # `batches` reads the labels' numbers from its config
        states = _states(model.eval(), drawn[:_HEAD_TEXTS], folder)
        train(
            model.classifier.parameters(),
            lambda batch: nn.functional.cross_entropy(model.classifier(batch.input_ids), batch.labels),
            states,
            steps=_HEAD_STEPS,
            learning_rate=_HEAD_RATE,
            tell=lambda fraction, message: tell(0.1 * fraction, f"head, {message}"),
        )
        if steps:
            _fine_tune(model, drawn[: 2 * steps * _BATCH], folder, steps, tell)
    _save(model, folder)


def _states(model: Any, rows: Sequence[Row], folder: Path) -> Iterator[Batch]:
    """Last states of the words' first tokens, computed once, in endless batches; `input_ids` holds them."""
    every, known = [], []
    for batch in islice(batches(rows, folder, max_tokens=_MAX_TOKENS, batch_size=_BATCH, seed=0), len(rows) // _BATCH):
        assert batch.labels is not None
        labelled = batch.labels != NO_LABEL
        with torch.no_grad():
            every.append(model.bert(**batch.inputs()).last_hidden_state[labelled])
        known.append(batch.labels[labelled])
    states, labels = torch.cat(every), torch.cat(known)
    order = torch.Generator().manual_seed(0)
    while True:
        drawn = torch.randint(len(states), (_HEAD_WORDS,), generator=order)
        yield Batch(states[drawn], torch.ones(_HEAD_WORDS, 1), labels[drawn])


def _fine_tune(model: Any, rows: Sequence[Row], folder: Path, steps: int, tell: Tell) -> None:
    def step(batch: Batch) -> torch.Tensor:
        loss = label_loss(answer(model, batch, ()), Task.TOKEN_CLASSIFICATION, batch)
        assert loss is not None
        return loss

    model.train()
    train(
        [weight for name, weight in model.named_parameters() if "word_embeddings" not in name],
        step,
        batches(rows, folder, max_tokens=_MAX_TOKENS, batch_size=_BATCH, seed=1),
        steps=steps,
        learning_rate=_RATE,
        tell=lambda fraction, message: tell(0.1 + 0.9 * fraction, message),
    )


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if (minilm() / name).is_file():
            shutil.copyfile(minilm() / name, folder / name)


def main() -> None:
    """Train, or find, the model and print how well it labels."""
    arguments = argparse.ArgumentParser(description="A model trained on valence-en.")
    arguments.add_argument("--steps", type=int, default=STEPS, help="optimiser steps")
    given = arguments.parse_args()
    console = Console()
    with console.status("") as status:
        folder = trained_tagger(steps=given.steps, tell=lambda done, said: status.update(f"{done:.0%} {said}"))
        status.update("judging")
        rows = [row for row in valence.evaluation_rows() if len(row.words) < _MAX_TOKENS // 2][:500]
        said = scores(folder, rows)
        found = [
            measure_tagging(one, said, said, rows, valence.LABELS, (0.95,)) for one in (Metric.F1, Metric.ACCURACY)
        ]
    shown = ", ".join(f"{name} {one.baseline:.4f}" for name, one in zip(("F1", "accuracy"), found, strict=True))
    console.print(f"{folder}\n{shown} on {len(rows)} rows that were not learnt from")


if __name__ == "__main__":
    main()
