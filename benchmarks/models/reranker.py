"""A reranker that learnt something: reads two texts together and says how alike they are.

    python -m benchmarks.models.reranker [--steps N]

MiniLM with a head of one output (a cross-encoder). It learns from news passages that nobody rated: pairs of one
document, of neighbouring documents and of strangers, rated by the cosine of MiniLM's own embeddings (Augmented SBERT,
Thakur 2021, the other way round). People's ratings, the set
`similarity-en`, are only judged on.

Checkpoints are kept below $XDG_CACHE_HOME/enginewright/models by what they follow from.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from torch import nn

from benchmarks.models.classifier import minilm
from benchmarks.models.places import model_folder
from enginewright_api.engine_description import Pooling
from enginewright_api.recipe import Task
from enginewright_builder.compression.batches import Batch, batches
from enginewright_builder.compression.imitation import pooled
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import Tell, quiet, reproducible, train
from enginewright_builder.datasets import news, similarity
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.ranking import ndcg_by_query

STEPS = 300
_MAX_TOKENS = 128
_BATCH = 16
_RATE = 1e-4
_PAIRS = 4096
_SHARPNESS = 6.0
"""Cosines of unlike texts are near 0 and of alike ones near 1; scores spread like logits train better."""
_VERSION = 1
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def trained_reranker(*, steps: int = STEPS, tell: Tell = quiet) -> Path:
    """Checkpoint folder (BertForSequenceClassification, one output), made once."""
    content = {"steps": steps, "version": _VERSION, "torch": importlib.metadata.version("torch")}
    with model_folder("reranker-minilm", content) as (folder, made):
        if not made:
            _train(folder, steps, tell)
    return folder


def ranking(folder: Path, rows: Sequence[Row]) -> float:
    """Mean nDCG@10 of rated pairs."""
    model = load_model(folder, Task.RERANKING)
    scores = np.concatenate([_scores(model, rows[start : start + 8], folder) for start in range(0, len(rows), 8)])
    relevance = np.array([row.score for row in rows], np.float64)
    return float(ndcg_by_query([row.text for row in rows], relevance, scores).mean())


def pairs() -> list[Row]:
    """Pairs of passages: of one document, of neighbours in the file, and of strangers, in turn."""
    documents = [[row.text for row in news.passages([text])] for text in news.corpus("lee_background.cor")]
    documents = [passages for passages in documents if len(passages) > 1]
    generator = np.random.default_rng(0)
    found = []
    for number in range(_PAIRS):
        first = int(generator.integers(len(documents)))
        second = (first, (first + 1) % len(documents), int(generator.integers(len(documents))))[number % 3]
        found.append(Row(_any(documents[first], generator), text_pair=_any(documents[second], generator)))
    return found


def _any(passages: Sequence[str], generator: np.random.Generator) -> str:
    return passages[int(generator.integers(len(passages)))]


def _train(folder: Path, steps: int, tell: Tell) -> None:
    with reproducible(0):
        config: Any = transformers.BertConfig.from_pretrained(
            minilm(), num_labels=1, architectures=["BertForSequenceClassification"]
        )
        model = transformers.BertForSequenceClassification.from_pretrained(minilm(), config=config)
        teacher = transformers.BertModel.from_pretrained(minilm()).eval().requires_grad_(False)
        _save(model, folder)
        endless = batches(pairs()[: 2 * steps * _BATCH], folder, max_tokens=_MAX_TOKENS, batch_size=_BATCH, seed=0)

        def step(batch: Batch) -> torch.Tensor:
            wanted = _SHARPNESS * (_likeness(teacher, batch) - 0.5)
            return nn.functional.mse_loss(model(**batch.inputs()).logits[:, 0], wanted)

        model.train()
        train(
            [weight for name, weight in model.named_parameters() if "word_embeddings" not in name],
            step,
            endless,
            steps=steps,
            learning_rate=_RATE,
            tell=tell,
        )
    _save(model, folder)


def _likeness(teacher: Any, batch: Batch) -> torch.Tensor:
    """Cosine of the embeddings of both texts of each pair, from the pair's own tokens [batch]."""
    kinds = batch.token_type_ids
    assert kinds is not None
    vectors = []
    for kind in (0, 1):
        mask = batch.attention_mask * (kinds == kind)
        with torch.no_grad():
            states = teacher(input_ids=batch.input_ids, attention_mask=mask).last_hidden_state
        vectors.append(pooled(states, mask, Pooling.MEAN))
    return nn.functional.cosine_similarity(*vectors, dim=1)


def _scores(model: Any, rows: Sequence[Row], folder: Path) -> Any:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")  # noqa: S106 - no secret
    given = tokenizer(
        [row.text for row in rows],
        [row.text_pair for row in rows],
        padding=True,
        truncation=True,
        max_length=_MAX_TOKENS,
        return_tensors="pt",
    )
    with torch.no_grad():
        return model(**given).logits[:, 0].double().numpy()


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if (minilm() / name).is_file():
            shutil.copyfile(minilm() / name, folder / name)


def main() -> None:
    """Train, or find, the model and print how well it ranks."""
    arguments = argparse.ArgumentParser(description="A reranker trained on news passages.")
    arguments.add_argument("--steps", type=int, default=STEPS, help="optimiser steps")
    given = arguments.parse_args()
    console = Console()
    with console.status("") as status:
        folder = trained_reranker(steps=given.steps, tell=lambda done, said: status.update(f"{done:.0%} {said}"))
        status.update("judging")
        rows = list(islice(similarity.evaluation_rows(), 400))
        found = ranking(folder, rows)
    console.print(f"{folder}\nnDCG@10 {found:.4f} on {len(rows)} rated pairs that were not learnt from")


if __name__ == "__main__":
    main()
