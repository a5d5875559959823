"""Pruning: pieces of the network are removed or zeroed, with training in between and afterwards."""

from __future__ import annotations

import copy
import math
from itertools import islice
from pathlib import Path

import transformers

from enginewright_api.optimization import DistillationObjective, Pruning, PruningCriterion, PruningGranularity
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import layers_of, shape_of
from enginewright_builder.compression.counting import compared, size_of
from enginewright_builder.compression.prune.importance import Probe
from enginewright_builder.compression.prune.lottery import draw_ticket
from enginewright_builder.compression.prune.reconstruction import enough
from enginewright_builder.compression.prune.recovery import Recovery
from enginewright_builder.compression.prune.run import PruningRun
from enginewright_builder.compression.prune.schedule import plan
from enginewright_builder.compression.prune.sparse import sparsify
from enginewright_builder.compression.prune.structured import shrink
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.compression.training import Tell, batches, reproducible
from enginewright_builder.datasets.rows import Row
from enginewright_builder.sources.checkpoint import inspect

_SEED = 7
_MAX_TOKENS = 128
_TRAIN_BATCH = 16
_RATE, _RECONSTRUCTED_RATE = 3e-4, 3e-5
"""Learning rates of recovery. Weights made by least squares are near already, and the larger rate leads them away."""
_PROBE_BATCH, _PROBE_BATCHES = 4, 16
_TOKENS_AN_INPUT = 32
"""Tokens that a least-squares fit looks at for each unknown weight."""
_SHRINKING = (
    PruningGranularity.NEURONS,
    PruningGranularity.HEADS,
    PruningGranularity.HEADS_AND_NEURONS,
    PruningGranularity.LAYERS,
)


def prune(  # noqa: PLR0917 - the one face of all transforms
    checkpoint: Path, task: Task, settings: Pruning, rows: list[Row], into: Path, tell: Tell
) -> dict[str, object]:
    """Checkpoint to checkpoint, same bytes for same inputs.

    Result: parameters, nonZeroParameters and flops before and after, sparsity (share of the pieces that went), what
    was kept (heads, layers, neurons) and recovery: steps, first and last loss of each
    training.

    Raises DeterministicError: InvalidRecipe, UnsupportedArchitecture, TooSparse, BlocksDoNotFit, InvalidDataset.
    """
    steps = tuple(plan(settings))
    model = load_model(checkpoint, task)
    before = size_of(model)
    with reproducible(_SEED):
        run = PruningRun(
            model,
            settings,
            steps,
            _probe(model, checkpoint, task, settings, rows),
            _recovery(model, checkpoint, task, settings, rows),
            tell,
        )
        if settings.granularity in _SHRINKING:
            found = shrink(run)
        elif settings.criterion is PruningCriterion.LOTTERY_TICKET:
            found = draw_ticket(run)
        else:
            found = sparsify(run)
    save_model(model, checkpoint, into)
    return {**compared(before, size_of(model)), **found}


def _probe(
    model: transformers.PreTrainedModel, checkpoint: Path, task: Task, settings: Pruning, rows: list[Row]
) -> Probe:
    pooling, _ = inspect(checkpoint).pooling()
    if settings.criterion is PruningCriterion.GRADIENT:
        endless = batches(rows, checkpoint, max_tokens=_MAX_TOKENS, batch_size=_PROBE_BATCH, seed=_SEED)
        return Probe(task, pooling, tuple(islice(endless, _PROBE_BATCHES)))
    if settings.criterion is PruningCriterion.RECONSTRUCTION:
        layers = layers_of(model, field="optimization.pruning.granularity")
        widest = max(shape_of(model.get_submodule(layer.name(layer.layout.contract)))[0] for layer in layers)
        endless = batches(rows, checkpoint, max_tokens=_MAX_TOKENS, batch_size=_TRAIN_BATCH, seed=_SEED)
        one_pass = islice(endless, math.ceil(len(rows) / _TRAIN_BATCH))
        return Probe(task, pooling, tuple(enough(one_pass, _TOKENS_AN_INPUT * widest)))
    return Probe(task, pooling, ())


def _recovery(
    model: transformers.PreTrainedModel, checkpoint: Path, task: Task, settings: Pruning, rows: list[Row]
) -> Recovery | None:
    if not settings.recovery_steps:
        return None
    pooling, _ = inspect(checkpoint).pooling()
    objectives = [DistillationObjective.LOGITS]
    if settings.granularity is not PruningGranularity.LAYERS:
        objectives.append(DistillationObjective.HIDDEN_STATES)
    endless = batches(rows, checkpoint, max_tokens=_MAX_TOKENS, batch_size=_TRAIN_BATCH, seed=_SEED)
    rate = _RECONSTRUCTED_RATE if settings.criterion is PruningCriterion.RECONSTRUCTION else _RATE
    teacher = copy.deepcopy(model).requires_grad_(False)
    return Recovery(teacher, task, pooling, endless, tuple(objectives), learning_rate=rate)
