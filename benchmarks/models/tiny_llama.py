"""A Llama of two million parameters that learnt English news and reviews, with a tokenizer of its own.

    python -m benchmarks.models.tiny_llama [--size base|draft] [--steps N]

base   4 layers of width 192, 2,048 tokens: about 2 M parameters; minutes on two cores.
draft  1 layer of width 96 on the same tokenizer: a draft model for speculative decoding.

It learns from the parts of the builtin sets that nothing is judged on; perplexity is on the evaluation rows of
`news-en`, per token of its own tokenizer. Checkpoints are kept below $XDG_CACHE_HOME/enginewright/models.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.models.places import model_folder
from enginewright_api.recipe import Task
from enginewright_builder.compression.batches import Batch
from enginewright_builder.compression.imitation import answer, label_loss
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import Tell, quiet, reproducible, train
from enginewright_builder.datasets import news, reviews

SIZES: dict[str, dict[str, int]] = {
    "base": {
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
    },
    "draft": {
        "hidden_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "intermediate_size": 256,
    },
}
STEPS = 800
_VOCABULARY = 2048
_END = "<|endoftext|>"
_TOKENS, _BATCH = 128, 16
_RATE = 2e-3
_VERSION = 1


def trained_llama(*, size: str = "base", steps: int = STEPS, tell: Tell = quiet) -> Path:
    """Checkpoint folder (LlamaForCausalLM), made once. Zero steps give the model before it learns."""
    content = {"size": size, "steps": steps, "version": _VERSION, "torch": importlib.metadata.version("torch")}
    with model_folder(f"tiny-llama-{size}", content) as (folder, made):
        if not made:
            _train(folder, SIZES[size], steps, tell)
    return folder


def perplexity(folder: Path, texts: Sequence[str]) -> float:
    """exp of the mean negative log-likelihood of a token, given what comes before it in its text."""
    model = load_model(folder, Task.TEXT_GENERATION)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(_END)
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([[end, *tokenizer.encode(text).ids[: _TOKENS - 1]]])
        batch = Batch(ids, torch.ones_like(ids))
        with torch.no_grad():
            loss = label_loss(answer(model, batch, ()), Task.TEXT_GENERATION, batch)
        total += float(loss) * (ids.shape[1] - 1) if loss is not None else 0.0
        count += ids.shape[1] - 1
    return math.exp(total / count)


def held_out_texts(count: int) -> list[str]:
    """Texts that were not learnt from."""
    return [row.text for row in news.evaluation_rows()[:count]]


def _texts() -> list[str]:
    judged = {row.normalized for row in reviews.evaluation_rows()}
    editorials = groupby(reviews.snippets("nytEditorial"), key=lambda snippet: snippet.document)
    return [
        *(row.text for row in news.calibration_rows()),
        *(" ".join(snippet.text for snippet in snippets) for _, snippets in editorials),
        *(row.text for row in reviews.calibration_rows() if row.normalized not in judged),
    ]


def _tokenizer(texts: Sequence[str], folder: Path) -> Tokenizer:
    """Byte-level BPE, so that there is no unknown text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=_END, eos_token=_END, pad_token=_END
    )
    fast.save_pretrained(folder)
    return tokenizer


def _train(folder: Path, sizes: dict[str, int], steps: int, tell: Tell) -> None:
    texts = _texts()
    tokenizer = _tokenizer(texts, folder)
    end = tokenizer.token_to_id(_END)
    config = transformers.LlamaConfig(
        **sizes,
        vocab_size=_VOCABULARY,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    with reproducible(0):
        model: Any = transformers.LlamaForCausalLM(config)

        def step(batch: Batch) -> torch.Tensor:
            loss = label_loss(answer(model, batch, ()), Task.TEXT_GENERATION, batch)
            assert loss is not None
            return loss

        if steps:
            blocks = _blocks(tokenizer, texts)
            train(model.parameters(), step, blocks, steps=steps, learning_rate=_RATE, weight_decay=0.01, tell=tell)
    model.save_pretrained(folder)


def _blocks(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Batch]:
    """Endless batches without padding: texts one after the other behind end tokens, in a new order each pass."""
    end = tokenizer.token_to_id(_END)
    encoded = [torch.tensor([end, *encoding.ids]) for encoding in tokenizer.encode_batch(list(texts))]
    order = torch.Generator().manual_seed(0)
    while True:
        stream = torch.cat([encoded[index] for index in torch.randperm(len(encoded), generator=order).tolist()])
        size = _TOKENS * _BATCH
        for start in range(0, len(stream) - size + 1, size):
            ids = stream[start : start + size].reshape(_BATCH, _TOKENS)
            yield Batch(ids, torch.ones_like(ids))


def main() -> None:
    """Train, or find, a model and print its perplexity beside that of the model before training."""
    arguments = argparse.ArgumentParser(description="A small Llama trained on English texts.")
    arguments.add_argument("--size", choices=sorted(SIZES), default="base")
    arguments.add_argument("--steps", type=int, default=STEPS, help="optimiser steps")
    given = arguments.parse_args()
    console = Console()
    with console.status("") as status:
        folder = trained_llama(
            size=given.size, steps=given.steps, tell=lambda done, said: status.update(f"{done:.0%} {said}")
        )
        status.update("judging")
        texts = held_out_texts(200)
        after, before = perplexity(folder, texts), perplexity(trained_llama(size=given.size, steps=0), texts)
    console.print(f"{folder}\nperplexity {after:.1f} on {len(texts)} unseen texts, before training {before:.0f}")


if __name__ == "__main__":
    main()
