"""Distillation: a smaller student learns to answer like its teachers."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Distillation
from enginewright_api.optimization import DistillationObjective as Objective
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import layers_of
from enginewright_builder.compression.batches import Batch, batches, singles
from enginewright_builder.compression.counting import compared, size_of
from enginewright_builder.compression.imitation import answer, imitation_loss, layer_pairs
from enginewright_builder.compression.shrink import keep_layers
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.compression.training import Tell, rate_for, reproducible, train
from enginewright_builder.datasets.rows import Row
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.sources.vocabulary import vocabulary

_SEED = 11
_MAX_TOKENS = 128
_BATCH = 16
_FITTED_BATCHES = 8
"""Their tokens fit the first maps between states; they are learnt from like the others."""
_FITTED_TOKENS = 512
"""Of each of them: twice a width of 2048 in all, and no more memory than that needs."""
_LEARNING_RATE = 3e-4
"""At a hidden width of 384."""
_LAYERS_FIELD = "optimization.distillation.student.layers"
_SOURCE_FIELD = "optimization.distillation.student.source"


def distill(  # noqa: PLR0917 - every transform is called so
    checkpoint: Path,
    teachers: list[Path],
    task: Task,
    settings: Distillation,
    rows: list[Row],
    into: Path,
    tell: Tell,
) -> dict[str, object]:
    """Checkpoint to checkpoint, same bytes for same inputs.

    `checkpoint` is where the student's weights come from: the given model, of which `student.layers` evenly spaced
    layers are kept, or the model of `student.source` whole. Several teachers count equally: the mean of their
    divergences has the gradient of the divergence from their mean distribution. The student is trained without
    dropout: few steps imitate better without, and the teachers regularise.

    Result: parameters and flops of the first teacher and of the student, layers kept, the first and last loss, how
    many of the rows had labels (with none of them, alpha has no effect).

    Raises DeterministicError: InvalidRecipe, UnsupportedArchitecture, InvalidDataset, TrainingDiverged.
    """
    for teacher in teachers:
        _check_tokenizers(checkpoint, teacher)
    student = load_model(checkpoint, task)
    masters = [load_model(teacher, task).requires_grad_(False) for teacher in teachers]
    before = size_of(masters[0])
    kept = _keep(student, settings.student.layers)
    for master in masters:
        _check_outputs(student, master, task)
    with reproducible(_SEED):
        losses = _learn(student, masters, checkpoint, task=task, settings=settings, rows=rows, tell=tell)
    save_model(student, checkpoint, into)
    return {
        **compared(before, size_of(student)),
        **kept,
        "teachers": len(masters),
        "objectives": [objective.value for objective in settings.objectives],
        "firstLoss": losses[0],
        "lastLoss": losses[-1],
        "trainingSteps": len(losses),
        "labelledRows": sum(row.label is not None or bool(row.word_labels) for row in rows),
    }


def evenly_spaced(total: int, count: int) -> list[int]:
    """`count` of `total` layers, the first and the last among them."""
    return [round(index * (total - 1) / max(1, count - 1)) for index in range(count)]


def _keep(student: transformers.PreTrainedModel, count: int | None) -> dict[str, object]:
    if count is None:
        return {}
    layers = layers_of(student, field=_LAYERS_FIELD)
    if count > len(layers):
        raise DeterministicError("InvalidRecipe", f"{_LAYERS_FIELD}: {count} is more than the model's {len(layers)}")
    kept = evenly_spaced(len(layers), count)
    keep_layers(student, layers, kept)
    return {"layers": kept, "layersBefore": len(layers)}


def _learn(
    student: transformers.PreTrainedModel,
    teachers: list[transformers.PreTrainedModel],
    checkpoint: Path,
    *,
    task: Task,
    settings: Distillation,
    rows: list[Row],
    tell: Tell,
) -> list[float]:
    objectives = frozenset(settings.objectives)
    if Objective.ATTENTION in objectives:
        for model in (student, *teachers):
            model.set_attn_implementation("eager")  # fused kernels never hold the maps
    texts = singles(rows) if task is Task.EMBEDDING else rows
    drawn = batches(texts, checkpoint, max_tokens=_max_tokens(checkpoint), batch_size=_BATCH, seed=_SEED)
    fitted = list(islice(drawn, _FITTED_BATCHES))
    projections = [_projections(student, teacher, objectives, fitted) for teacher in teachers]
    pooling, _ = inspect(checkpoint).pooling()

    def step(batch: Batch) -> torch.Tensor:
        own = answer(student, batch, objectives, mixed=True)
        terms = []
        for teacher, projection in zip(teachers, projections, strict=True):
            with torch.no_grad():
                wanted = answer(teacher, batch, objectives, mixed=True)
            terms.append(
                imitation_loss(
                    own,
                    wanted,
                    task,
                    batch,
                    objectives,
                    temperature=settings.temperature,
                    alpha=settings.alpha,
                    pooling=pooling,
                    projections=projection,
                )
            )
        return torch.stack(terms).mean()

    learnt = [*student.parameters(), *(weight for each in projections if each for weight in each.parameters())]
    return train(
        learnt,
        step,
        chain(fitted, drawn),
        steps=settings.max_steps,
        learning_rate=rate_for(student.config.hidden_size, rate=_LEARNING_RATE),
        tell=tell,
    )


def _projections(
    student: transformers.PreTrainedModel,
    teacher: transformers.PreTrainedModel,
    objectives: frozenset[Objective],
    texts: list[Batch],
) -> nn.ModuleList | None:
    """Learnt maps from the student's width to the teacher's, one a compared state (Romero 2015, FitNets).

    Each begins as the least-squares fit on `texts`. From random maps the student learns to please the maps first: one
    of BERT-tiny's shape gave .54 of the labels right after 400 steps, from fitted maps .75.
    """
    narrow, wide = student.config.hidden_size, teacher.config.hidden_size
    if Objective.HIDDEN_STATES not in objectives or narrow == wide:
        return None
    pairs = layer_pairs(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    own = _states(student, texts, [layer for layer, _ in pairs])
    wanted = _states(teacher, texts, [layer for _, layer in pairs])
    maps = nn.ModuleList()
    for narrow_states, wide_states in zip(own, wanted, strict=True):
        fit = nn.Linear(narrow, wide, bias=False)
        with torch.no_grad():
            fit.weight.copy_(torch.linalg.lstsq(narrow_states, wide_states).solution.T)
        maps.append(fit)
    return maps


def _states(model: transformers.PreTrainedModel, texts: list[Batch], layers: list[int]) -> list[torch.Tensor]:
    """Hidden states [tokens, width] of these layers, embeddings being 0, for the first real tokens of each batch."""
    found = []
    for batch in texts:
        with torch.no_grad():
            states = answer(model, batch, (Objective.HIDDEN_STATES,)).hidden_states
        real = batch.attention_mask.bool()
        found.append([states[layer][real][:_FITTED_TOKENS].clone() for layer in layers])
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


def _max_tokens(checkpoint: Path) -> int:
    return min(_MAX_TOKENS, inspect(checkpoint).max_input_tokens or _MAX_TOKENS)


def _check_tokenizers(student: Path, teacher: Path) -> None:
    if student == teacher:
        return
    own, other = vocabulary(student), vocabulary(teacher)
    if own != other:
        raise DeterministicError(
            "InvalidRecipe",
            f"{_SOURCE_FIELD}: the student's vocabulary ({len(own)} tokens) is not the teacher's ({len(other)} tokens);"
            " student and teachers must share one tokenizer",
        )


def _check_outputs(student: Any, teacher: Any, task: Task) -> None:
    if task not in (Task.CLASSIFICATION, Task.TOKEN_CLASSIFICATION):
        return
    own, other = (list(model.config.id2label.values()) for model in (student, teacher))
    if own != other:
        raise DeterministicError(
            "InvalidRecipe",
            f"{_SOURCE_FIELD}: the student's classes ({', '.join(own)}) are not the teacher's ({', '.join(other)})",
        )
