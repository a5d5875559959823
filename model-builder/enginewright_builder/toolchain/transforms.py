"""Checkpoint to checkpoint: which function does which step."""

from __future__ import annotations

from collections.abc import Callable

from enginewright_api.errors import DeterministicError
from enginewright_builder.toolchain.tasks import TransformTask

Tell = Callable[[float, str], None]


def transform(task: TransformTask, tell: Tell) -> dict[str, object]:
    """Run the one step that the task has settings for."""
    if task.distillation is not None:
        from enginewright_builder.compression.distill import distill

        return distill(task.checkpoint, task.teachers, task.model_task, task.distillation, task.rows, task.into, tell)
    if task.pruning is not None:
        from enginewright_builder.compression.prune import prune

        return prune(task.checkpoint, task.model_task, task.pruning, task.rows, task.into, tell)
    if task.low_rank is not None:
        from enginewright_builder.compression.low_rank import factorize

        return factorize(task.checkpoint, task.model_task, task.low_rank, task.into, tell)
    if task.early_exit is not None:
        from enginewright_builder.compression.early_exit import add_exit

        return add_exit(task.checkpoint, task.model_task, task.early_exit, task.rows, task.into, tell)
    if task.quantization is not None:
        from enginewright_builder.compression.quantization_aware import train_quantized

        return train_quantized(task.checkpoint, task.model_task, task.quantization, task.rows, task.into, tell)
    raise DeterministicError("InternalError", "a transform without settings")
