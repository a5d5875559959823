"""Early exit: a small head after one of the layers, and how sure it must be for its answer to be given.

The model itself stays as it is. Heads after every layer but the last learn to answer like the whole model (DeeBERT,
Xin 2020, but imitating the model, not the labels); the one that leaves least to compute is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from enginewright_api.build_time import EXIT_BATCH, EXIT_ROWS, EXIT_STEPS
from enginewright_api.engine_description import Pooling
from enginewright_api.errors import DeterministicError
from enginewright_api.identity import canonical_json
from enginewright_api.model_base import ApiModel
from enginewright_api.recipe import Task
from enginewright_api.serving_spec import EarlyExit
from enginewright_builder.compression.anatomy import layers_of
from enginewright_builder.compression.batches import Batch, batches
from enginewright_builder.compression.counting import size_of
from enginewright_builder.compression.imitation import pooled
from enginewright_builder.compression.shrink import keep_layers
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import Tell, reproducible, train
from enginewright_builder.datasets.rows import Row
from enginewright_builder.description import EXIT
from enginewright_builder.sources.checkpoint import inspect

HEAD = "exit.safetensors"
FIELD = "runtime.earlyExit"
_SEED = 17
_MAX_TOKENS = 128
_BATCH = 64
"""Rows read at a time."""
_LEARNING_RATE = 2e-3
_HELD_OUT_EVERY = 3
"""One row in so many chooses layer and threshold; the heads learn from the others."""
_LEAST_LAYERS = 2


class Exit(ApiModel):
    """exit.json of a checkpoint with an early exit."""

    layer: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    labels: Annotated[int, Field(ge=1)]
    threshold: Annotated[float, Field(gt=0.0, le=1.0)]


class ExitHead(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Mean of the tokens' states, one hidden layer of the same width, scores [batch, labels]."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.out = nn.Linear(width, labels)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[batch, tokens, width] and [batch, tokens] to [batch, labels]."""
        return self.score(pooled(hidden_states, attention_mask, Pooling.MEAN))

    def score(self, vectors: torch.Tensor) -> torch.Tensor:
        """Of pooled states [batch, width]."""
        found: torch.Tensor = self.out(torch.tanh(self.dense(vectors)))
        return found


def add_exit(  # noqa: PLR0917 - every transform is called so
    checkpoint: Path, task: Task, settings: EarlyExit, rows: list[Row], into: Path, tell: Tell
) -> dict[str, object]:
    """Checkpoint to the same checkpoint with exit.json and exit.safetensors, same bytes for same inputs.

    Result: exitLayer and layers; exitShare, the share of held-out rows that leave; exitAgreement, how many of those
    get the whole model's answer; flops of a text on average, and flopsBefore without the exit.

    Raises DeterministicError: UnsupportedArchitecture, InvalidDataset, InvalidRecipe for a model of one layer,
    NothingExits when no head is right often enough.
    """
    model = load_model(checkpoint, task).requires_grad_(False)
    layers = layers_of(model, field=FIELD)
    if len(layers) < _LEAST_LAYERS:
        raise DeterministicError("InvalidRecipe", f"{FIELD}: the model has {len(layers)} layer; leave it out")
    whole = size_of(model)
    with reproducible(_SEED):
        rows = rows[:EXIT_ROWS]
        states, answers = _states(model, checkpoint, rows, len(layers), tell)
        held = torch.arange(len(answers)) % _HELD_OUT_EVERY == 0
        with _one_thread():
            heads = _trained(states[~held], answers[~held], tell)
    with torch.no_grad():
        found = [
            choose_threshold(head.score(states[held, layer]), answers[held], settings.confidence)
            for layer, head in enumerate(heads)
        ]
    best = min(range(len(found)), key=lambda layer: _work(layer + 1, len(layers), found[layer].share))
    chosen = found[best]
    if chosen.share == 0.0:
        raise DeterministicError(
            "NothingExits",
            f"{FIELD}.confidence: on {int(held.sum())} rows no head gives the model's answer to a share of"
            f" {settings.confidence:g} of those it is surest of; lower it, give more rows, or leave earlyExit out",
        )
    keep_layers(model, layers, range(best + 1))
    _must_divide(model, next(_batches(rows, checkpoint)), states[:_BATCH, best])
    first = size_of(model)
    labels, width = answers.shape[1], states.shape[2]
    _write(checkpoint, into, Exit(layer=best + 1, width=width, labels=labels, threshold=chosen.threshold), heads[best])
    flops = round(first.flops + (1.0 - chosen.share) * (whole.flops - first.flops))
    return {
        "exitLayer": best + 1,
        "layers": len(layers),
        "exitThreshold": chosen.threshold,
        "exitShare": chosen.share,
        "exitAgreement": chosen.agreement,
        "heldOutRows": int(held.sum()),
        "flops": flops,
        "flopsBefore": whole.flops,
        "message": f"{chosen.share:.0%} of the rows leave after layer {best + 1} of {len(layers)},"
        f" {chosen.agreement:.1%} of them with the whole model's answer",
    }


class Threshold(ApiModel):
    """A threshold, and what it does on the rows that it was chosen on."""

    threshold: float
    share: float
    agreement: float


def choose_threshold(scores: torch.Tensor, answers: torch.Tensor, wanted: float) -> Threshold:
    """The lowest threshold at which at least `wanted` of the rows that leave get the model's answer.

    `scores` and `answers` [rows, labels] are the head's and the model's. One more wrong answer than was seen is
    reckoned with, which makes the promise hold in expectation for rows not seen (the bound of Angelopoulos 2022,
    Conformal risk control): few rows cannot promise much. Share 0 when no threshold does it.
    """
    sure, said = torch.softmax(scores.double(), 1).max(1)
    order = torch.argsort(sure, descending=True, stable=True)
    wrong = (said != answers.argmax(1))[order].double().cumsum(0)
    count = torch.arange(1, len(order) + 1, dtype=torch.float64)
    held = (wrong + 1) / (count + 1) <= 1.0 - wanted + 1e-12
    # Rows of equal confidence leave together.
    descending = sure[order]
    held &= torch.cat([descending[1:] < descending[:-1], torch.ones(1, dtype=torch.bool)])
    places = torch.nonzero(held).flatten()
    if len(places) == 0:
        return Threshold(threshold=1.0, share=0.0, agreement=0.0)
    last = int(places[-1])
    # Half-way to the next row, so that rounding in the engine moves nobody over it.
    following = float(descending[last + 1]) if last + 1 < len(order) else float(descending[last])
    middle = (float(descending[last]) + following) / 2
    threshold = middle if middle > following else float(descending[last])
    exits = last + 1
    return Threshold(threshold=threshold, share=exits / len(order), agreement=1.0 - float(wrong[last]) / exits)


def load_head(checkpoint: Path) -> ExitHead:
    """The head of a checkpoint with an early exit, in evaluation mode."""
    found = Exit.model_validate_json((checkpoint / EXIT).read_bytes())
    head = ExitHead(found.width, found.labels)
    head.load_state_dict(load_file(checkpoint / HEAD))
    head.eval()
    return head


def _states(
    model: nn.Module, checkpoint: Path, rows: Sequence[Row], layers: int, tell: Tell
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled states after every layer but the last [rows, layers - 1, width] and the model's scores [rows, labels]."""
    endless = _batches(rows, checkpoint)
    count = -(-len(rows) // _BATCH)
    states, answers = [], []
    for number, batch in enumerate(islice(endless, count)):
        with torch.no_grad():
            answer = model(**batch.inputs(), output_hidden_states=True)
        each = [pooled(state, batch.attention_mask, Pooling.MEAN) for state in answer.hidden_states[1:layers]]
        states.append(torch.stack(each, 1))
        answers.append(answer.logits)
        tell(0.5 * (number + 1) / count, f"{number + 1} of {count} batches read")
    return torch.cat(states), torch.cat(answers)


def _batches(rows: Sequence[Row], checkpoint: Path) -> Iterator[Batch]:
    limit = min(_MAX_TOKENS, inspect(checkpoint).max_input_tokens or _MAX_TOKENS)
    return batches(rows, checkpoint, max_tokens=limit, batch_size=_BATCH, seed=_SEED)


def _must_divide(model: nn.Module, batch: Batch, states: torch.Tensor) -> None:
    """The first layers alone give the states that they give inside the model; a norm after the last forbids it."""
    with torch.no_grad():
        found = pooled(model.base_model(**batch.inputs()).last_hidden_state, batch.attention_mask, Pooling.MEAN)
    if not torch.allclose(found, states[: len(found)], atol=1e-3, rtol=1e-3):
        raise DeterministicError(
            "UnsupportedArchitecture",
            f"{FIELD}: {type(model).__name__} changes states after its last layer, so its first layers cannot run"
            " alone; leave it out",
        )


def _trained(states: torch.Tensor, answers: torch.Tensor, tell: Tell) -> list[ExitHead]:
    """One head a layer, all in one run, from KL(model || head)."""
    if len(states) == 0:
        raise DeterministicError("InvalidDataset", f"{FIELD}: too few rows to learn an exit from; give more")
    heads = [ExitHead(states.shape[2], answers.shape[1]) for _ in range(states.shape[1])]

    def step(batch: Batch) -> torch.Tensor:
        drawn = batch.input_ids
        wanted = torch.log_softmax(answers[drawn], 1)
        losses = [
            functional.kl_div(
                torch.log_softmax(head.score(states[drawn, layer]), 1), wanted, reduction="batchmean", log_target=True
            )
            for layer, head in enumerate(heads)
        ]
        return torch.stack(losses).sum()

    train(
        [weight for head in heads for weight in head.parameters()],
        step,
        _drawn(len(states)),
        steps=EXIT_STEPS,  # more and they know the rows by heart: with 600 fewer of the held-out rows leave
        learning_rate=_LEARNING_RATE,
        tell=lambda fraction, message: tell(0.5 + 0.5 * fraction, message),
        weight_decay=0.01,
    )
    return heads


@contextmanager
def _one_thread() -> Iterator[None]:
    """Operations on heads are too small to share: on a busy machine two threads wait for each other at every one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _drawn(rows: int) -> Iterator[Batch]:
    """Endless row numbers."""
    order = torch.Generator().manual_seed(_SEED)
    while True:
        drawn = torch.randint(rows, (min(rows, EXIT_BATCH),), generator=order)
        yield Batch(drawn, torch.ones_like(drawn))


def _work(layer: int, layers: int, share: float) -> float:
    """Layers that a row passes on average."""
    return layer + (1.0 - share) * (layers - layer)


def _write(checkpoint: Path, into: Path, found: Exit, head: ExitHead) -> None:
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file():
            target = into / path.relative_to(checkpoint)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(path)  # weights are large and never written to
            except OSError:
                shutil.copyfile(path, target)
    (into / EXIT).write_bytes(canonical_json(found.wire()))
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, into / HEAD)
