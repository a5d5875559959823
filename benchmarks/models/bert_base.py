"""Models of BERT-base's shape with random weights: as slow as trained ones, made in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import transformers

from benchmarks.models.classifier import minilm
from benchmarks.models.places import model_folder

LAYERS, WIDTH, HEADS, NEURONS = 12, 768, 12, 3072
_LABELS = ("negative", "positive")


def random_classifier() -> Path:
    """Checkpoint folder, made once. It takes MiniLM's tokenizer, whose vocabulary is BERT's."""
    with model_folder("bert-base-random", {"layers": LAYERS, "width": WIDTH, "version": 1}) as (folder, made):
        if not made:
            _make(folder, transformers.BertForSequenceClassification)
    return folder


def random_encoder() -> Path:
    """Likewise without a head, for sentence embeddings."""
    with model_folder("bert-base-random-encoder", {"layers": LAYERS, "width": WIDTH, "version": 1}) as (folder, made):
        if not made:
            _make(folder, transformers.BertModel)
    return folder


def _make(folder: Path, architecture: type[transformers.PreTrainedModel]) -> None:
    config = transformers.BertConfig(
        num_hidden_layers=LAYERS,
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        intermediate_size=NEURONS,
        id2label=dict(enumerate(_LABELS)),
        label2id={label: number for number, label in enumerate(_LABELS)},
    )
    torch.manual_seed(0)
    architecture(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(minilm() / name, folder / name)
