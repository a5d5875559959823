"""What it means that a student answers like its teacher: one loss over outputs, hidden states and attention.

Every term is relative (a divergence, or an error over the teacher's own size), so terms of different models and
objectives have comparable weight without tuning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from enginewright_api.engine_description import Pooling
from enginewright_api.optimization import DistillationObjective as Objective
from enginewright_api.recipe import Task
from enginewright_builder.compression import mixed_precision
from enginewright_builder.compression.batches import NO_LABEL, Batch

_TINY = 1e-9


def answer(model: torch.nn.Module, batch: Batch, objectives: Collection[Objective], *, mixed: bool = False) -> Any:
    """The model's output, float32, with what the objectives compare; `mixed` computes products in bf16 where it pays.

    Raw attention maps exist only outside fused kernels: `Attention` needs `model.set_attn_implementation("eager")`.
    """
    call = partial(mixed_precision.call, model) if mixed else model
    return call(
        **batch.inputs(),
        output_hidden_states=Objective.HIDDEN_STATES in objectives,
        output_attentions=Objective.ATTENTION in objectives,
    )


def imitation_loss(
    student_out: Any,
    teacher_out: Any,
    task: Task,
    batch: Batch,
    objectives: Collection[Objective],
    *,
    temperature: float,
    alpha: float,
    pooling: Pooling = Pooling.MEAN,
    projections: Sequence[torch.nn.Module] | None = None,
) -> torch.Tensor:
    """alpha × mean of the objectives + (1 - alpha) × cross entropy with the labels, where there are labels.

    Outputs are those of `answer` with the same objectives. Text generation has labels always: the next tokens. With
    other tasks, batches without labels use the imitation alone. `projections` bring each compared student state to
    the teacher's width (one a pair, see `layer_pairs`, embeddings first); without them widths must be equal.
    """
    terms = {
        Objective.LOGITS: lambda: output_loss(
            student_out, teacher_out, task, batch, temperature=temperature, pooling=pooling
        ),
        Objective.HIDDEN_STATES: lambda: hidden_loss(student_out, teacher_out, batch, projections),
        Objective.ATTENTION: lambda: attention_loss(student_out, teacher_out, batch),
    }
    imitation = torch.stack([terms[objective]() for objective in sorted(objectives)]).mean()
    labelled = label_loss(student_out, task, batch)
    return imitation if labelled is None else alpha * imitation + (1.0 - alpha) * labelled


def output_loss(
    student_out: Any, teacher_out: Any, task: Task, batch: Batch, *, temperature: float, pooling: Pooling = Pooling.MEAN
) -> torch.Tensor:
    """Distance of the answers.

    Classes and tokens: KL(teacher || student) of the distributions at `temperature`, times temperature², which keeps
    the size of the gradient (Hinton, Vinyals, Dean 2015). Embeddings: cosine distance of the pooled vectors plus their
    squared error relative to the teacher's length; of vectors of another length, only the cosines between the texts of
    the batch can be compared (Park 2019, relational distillation). Scores of pairs: squared error over the teacher's
    variance.
    """
    if task is Task.RERANKING:
        own, wanted = student_out.logits.float(), teacher_out.logits.float()
        spread = wanted.var(unbiased=False).clamp(min=_TINY)
        return (own - wanted).square().mean() / spread
    if task is Task.EMBEDDING:
        student = pooled(student_out.last_hidden_state, batch.attention_mask, pooling)
        teacher = pooled(teacher_out.last_hidden_state, batch.attention_mask, pooling)
        if student.shape != teacher.shape:
            return _relation_error(student, teacher)
        cosine = functional.cosine_similarity(student, teacher, dim=1)
        return (1.0 - cosine).mean() + _relative_error(student, teacher, torch.ones_like(teacher[:, :1]))
    student, teacher = student_out.logits / temperature, teacher_out.logits / temperature
    each = functional.kl_div(
        functional.log_softmax(student, -1), functional.log_softmax(teacher, -1), reduction="none", log_target=True
    ).sum(-1)
    if each.dim() == 1:
        return each.mean() * temperature**2
    # What is said of special tokens is never asked for where tokens are labelled.
    mask = batch.text_mask if task is Task.TOKEN_CLASSIFICATION else None
    return _masked_mean(each, batch.attention_mask if mask is None else mask) * temperature**2


def label_loss(student_out: Any, task: Task, batch: Batch) -> torch.Tensor | None:
    """Cross entropy with what is known to be right; None where nothing is."""
    if task is Task.TEXT_GENERATION:
        following = batch.input_ids[:, 1:].masked_fill(batch.attention_mask[:, 1:] == 0, NO_LABEL)
        return functional.cross_entropy(student_out.logits[:, :-1].flatten(0, 1).float(), following.flatten())
    if task in (Task.EMBEDDING, Task.RERANKING) or batch.labels is None or bool((batch.labels == NO_LABEL).all()):
        return None
    return functional.cross_entropy(student_out.logits.float().flatten(0, -2), batch.labels.flatten())


def hidden_loss(
    student_out: Any, teacher_out: Any, batch: Batch, projections: Sequence[torch.nn.Module] | None = None
) -> torch.Tensor:
    """Squared error of hidden states over the teacher's mean square, averaged over mapped layers and real tokens.

    Layers are mapped as in TinyBERT (Jiao 2020), uniformly: student layer i imitates teacher layer i·T/S; the
    embeddings imitate the embeddings. The division makes layers with outlier channels count no more than others.
    """
    students, teachers = student_out.hidden_states, teacher_out.hidden_states
    pairs = layer_pairs(len(students) - 1, len(teachers) - 1)
    mask = batch.attention_mask.unsqueeze(-1)
    terms = []
    for number, (own, other) in enumerate(pairs):
        state = students[own] if projections is None else projections[number](students[own])
        terms.append(_relative_error(state, teachers[other], mask))
    return torch.stack(terms).mean()


def attention_loss(student_out: Any, teacher_out: Any, batch: Batch) -> torch.Tensor:
    """KL(teacher || student) of the attention distributions, averaged over mapped layers, heads and real tokens.

    KL as in MiniLM (Wang 2020), not the squared error of TinyBERT: what is compared are probabilities, whose squared
    error vanishes with the length of the text. Models with different numbers of heads are compared by the mean over
    the heads, which is a distribution too.
    """
    students, teachers = student_out.attentions, teacher_out.attentions
    terms = []
    for own, other in layer_pairs(len(students), len(teachers))[1:]:
        student, teacher = students[own - 1], teachers[other - 1]
        if student.shape[1] != teacher.shape[1]:
            student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
        student, teacher = student.clamp(min=_TINY), teacher.clamp(min=_TINY)
        each = (teacher * (teacher.log() - student.log())).sum(-1).mean(1)
        terms.append(_masked_mean(each, batch.attention_mask))
    return torch.stack(terms).mean()


def layer_pairs(student: int, teacher: int) -> list[tuple[int, int]]:
    """(student state, teacher state) by number of layers; state 0 is the embeddings, the last meets the last."""
    return [(layer, round(layer * teacher / student)) for layer in range(student + 1)]


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Token states [batch, tokens, width] to vectors [batch, width]."""
    if pooling is Pooling.CLS:
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=_TINY)


def _relative_error(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.to(teacher.dtype)
    error = ((student - teacher).square() * weights).sum()
    return error / (teacher.square() * weights).sum().clamp(min=_TINY)


def _relation_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    own, other = (functional.normalize(vectors, dim=1) for vectors in (student, teacher))
    return (own @ own.T - other @ other.T).square().mean()


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1.0)
