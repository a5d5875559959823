"""What distillation, pruning, low rank and early exits can be asked of, and what not yet: field and sentence."""

from __future__ import annotations

from enginewright_api.optimization import Distillation, Format, QuantizationMethod
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_api.short_source import SELF, teacher_source
from enginewright_api.source import Columns, Dataset

Unavailable = tuple[str, str]
"""(field path, one sentence)."""

_BACKENDS = (Backend.OPENVINO, Backend.ONNX_RUNTIME)
"""Their export goes through the loader that knows changed shapes; eager PyTorch and NVIDIA's builders read config.json
alone."""


def unavailable_transforms(recipe: Recipe) -> list[Unavailable]:
    """Every field of the transforms that nothing acts on."""
    blocks = (
        ("optimization.distillation", recipe.distillation, "distillation"),
        ("optimization.pruning", recipe.pruning, "pruning"),
        ("optimization.lowRank", recipe.low_rank, "low-rank factorisation"),
    )
    if recipe.backend not in _BACKENDS:
        names = " and ".join(backend.value for backend in _BACKENDS)
        return [
            (path, f"{what} is available with backends {names} only; leave it out")
            for path, block, what in blocks
            if block is not None
        ]
    found: list[Unavailable] = []
    if recipe.distillation is not None:
        found += _distillation(recipe.distillation)
    return found


def unavailable_exit(recipe: Recipe) -> list[Unavailable]:
    """An early exit where nothing acts on it, and what does not go with one."""
    if recipe.early_exit is None:
        return []
    field = "runtime.earlyExit"
    if recipe.task is not Task.CLASSIFICATION:
        return [(field, f"is available for task Classification, not for {recipe.task.value}; leave it out")]
    if recipe.backend not in _BACKENDS:
        names = " and ".join(backend.value for backend in _BACKENDS)
        return [(field, f"is available with backends {names} only; leave it out")]
    quantization = recipe.quantization
    where = "optimization.quantization"
    beside = (
        ("runtime.fastPath", "a fast path", recipe.fast_path is not None),
        (f"{where}.exclude", "leaving modules out", quantization is not None and bool(quantization.exclude)),
        # These two would have to see the whole model, which is measured and quantised in parts.
        (f"{where}.method", "QAT", quantization is not None and quantization.method is QuantizationMethod.QAT),
        (f"{where}.format", "Mixed", quantization is not None and quantization.format is Format.MIXED),
    )
    return [(path, f"{what} does not go with {field}; give one of them") for path, what, given in beside if given]


def training_columns(path: str, dataset: Dataset) -> list[Unavailable]:
    """Columns that are named and that no training reads."""
    if dataset.builtin is not None and dataset.columns != Columns():
        return [(f"{path}.columns", "has no effect on a builtin set; leave it out")]
    if dataset.columns.score is not None:
        return [(f"{path}.columns.score", "is not read by training; leave it out")]
    return []


def _distillation(distillation: Distillation) -> list[Unavailable]:
    where = "optimization.distillation"
    found: list[Unavailable] = []
    teachers = distillation.teachers
    strangers = [name for name in teachers if name != SELF and teacher_source(name) is None]
    if strangers:
        forms = "self, hf:ORG/NAME@COMMIT, s3://BUCKET/PATH, file:///FOLDER or package:NAME==VERSION/PATH"
        found.append((f"{where}.teachers", f"teacher {strangers[0]} is no pinned source; write {forms}"))
    if len(set(teachers)) < len(teachers):
        found.append((f"{where}.teachers", "names a teacher twice; name each once"))
    return found
