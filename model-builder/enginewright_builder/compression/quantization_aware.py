"""Quantisation-aware training: the model learns with its products in INT8, imitating itself in float32.

What it learns is a checkpoint like any other (weights in float32) and beside it the scales: the exporter reads both and
writes a graph whose quantisation is the trained one, so nothing is measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from enginewright_api.build_time import LEARNING_PASSES
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import DistillationObjective, Granularity, Quantization
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import layers_of
from enginewright_builder.compression.batches import Batch, batches
from enginewright_builder.compression.fake_quantize import ActivationGrid, ExportedLinear, Ranges, TrainedLinear
from enginewright_builder.compression.imitation import answer, imitation_loss
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.compression.training import Tell, rate_for, reproducible, train
from enginewright_builder.datasets.rows import Row, texts_of_rows
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.scopes import excluded_nodes

QUANTIZERS = "enginewright.quantizers.safetensors"
"""Beside the weights; per quantised module: levels, scales, smoothing, scale, zero."""
_SEED = 13
_BATCH = 16
_MEASURED_BATCHES = 4
"""Ranges are measured on them, and the loss before and after."""
_LEARNING_RATE = 2e-5
"""At a hidden width of 384."""
_TEMPERATURE = 4.0
_SMOOTHING = {Granularity.PER_CHANNEL: 0.85, Granularity.PER_TENSOR: 0.5}
"""How much of an input's range goes from the activations to the weights (α of SmoothQuant). Scales of their own let
outputs take more of it; with one scale for all, more of it ruins the weights (docs/techniques/quantization.md)."""
_OBJECTIVES = frozenset({DistillationObjective.LOGITS, DistillationObjective.HIDDEN_STATES})
_METHOD_FIELD = "optimization.quantization.method"


def train_quantized(  # noqa: PLR0917 - every transform is called so
    checkpoint: Path, task: Task, settings: Quantization, rows: list[Row], into: Path, tell: Tell
) -> dict[str, object]:
    """Checkpoint to checkpoint with quantizers, same bytes for same inputs.

    The linear modules of all layers are quantised but those that `exclude` names. Four passes over the texts of `rows`
    (at most `calibration.samples`), cut to `calibration.maxTokens`. Labels are not read: the model imitates itself.

    Result: quantizedModules, excluded, trainingRows, trainingSteps; lossBefore and lossAfter, how far the quantised
    model is from the model on the rows that ranges were measured on, before it learns and afterwards.
    Raises DeterministicError: UnsupportedArchitecture, PatternMatchesNothing, NothingToQuantize, InvalidDataset,
    TrainingDiverged.
    """
    model, teacher = (load_model(checkpoint, task) for _ in range(2))
    teacher.requires_grad_(False)
    names = _linears(model)
    excluded = excluded_nodes({name: name for name in names}, settings.exclude) if settings.exclude else []
    names = [name for name in names if name not in set(excluded)]
    if not names:
        raise DeterministicError(
            "NothingToQuantize",
            "optimization.quantization.exclude: leaves no matrix to quantise; exclude fewer modules",
        )
    texts = [Row(text) if isinstance(text, str) else Row(*text) for text in texts_of_rows(rows, task)]
    limit = min(
        settings.calibration.max_tokens, inspect(checkpoint).max_input_tokens or settings.calibration.max_tokens
    )

    def drawn() -> Iterator[Batch]:
        return batches(texts, checkpoint, max_tokens=limit, batch_size=_BATCH, seed=_SEED)

    measured = list(islice(drawn(), _MEASURED_BATCHES))
    loss = _loss(model, teacher, checkpoint, task)
    with reproducible(_SEED):
        _insert(model, names, measured, settings.granularity)
        before = _mean(loss, measured)
        rate = rate_for(model.config.hidden_size, rate=_LEARNING_RATE)
        steps = LEARNING_PASSES * -(-len(texts) // _BATCH)
        train(model.parameters(), loss, drawn(), steps=steps, learning_rate=rate, tell=tell)
        after = _mean(loss, measured)
    quantizers = _extract(model, names)
    save_model(model, checkpoint, into)
    save_file(quantizers, into / QUANTIZERS)
    return {
        "quantizedModules": len(names),
        "excluded": excluded,
        "trainingRows": len(texts),
        "trainingSteps": steps,
        "lossBefore": before,
        "lossAfter": after,
    }


def apply_quantizers(model: nn.Module, checkpoint: Path) -> None:
    """Replace the modules that were trained quantised by ones that exporters write as INT8; without the file, nothing.

    Raises DeterministicError InvalidCheckpoint for quantizers of modules that the model does not have.
    """
    file = checkpoint / QUANTIZERS
    if not file.is_file():
        return
    tensors = load_file(file)
    modules = dict(model.named_modules())
    for name in sorted({key.rpartition(":")[0] for key in tensors}):
        found = modules.get(name)
        if not isinstance(found, nn.Linear):
            raise DeterministicError("InvalidCheckpoint", f"{QUANTIZERS}: the model has no linear module {name}")
        own = {part: tensors[f"{name}:{part}"] for part in ("levels", "scales", "smoothing", "scale", "zero")}
        model.set_submodule(
            name,
            ExportedLinear(
                own["levels"], own["scales"], smoothing=own["smoothing"], scale=own["scale"], zero=own["zero"],
                bias=None if found.bias is None else found.bias.detach(),
            ),
        )  # fmt: skip


def _linears(model: transformers.PreTrainedModel) -> list[str]:
    """Of all layers; low-rank modules count as two."""
    found = []
    for layer in layers_of(model, field=_METHOD_FIELD):
        for name in layer.linears:
            module = model.get_submodule(name)
            if isinstance(module, nn.Linear):
                found.append(name)
            else:
                found += [f"{name}.{part}" for part, child in module.named_children() if isinstance(child, nn.Linear)]
    return found


def _insert(model: transformers.PreTrainedModel, names: list[str], rows: list[Batch], granularity: Granularity) -> None:
    linears = {name: model.get_submodule(name) for name in names}
    seen = _Seen(linears)
    with torch.no_grad(), seen:
        for batch in rows:
            seen.mask = batch.attention_mask.bool()
            model(**batch.inputs())
    for group in seen.groups():
        low, high = seen.extremes(group[0])
        weights = torch.stack([linears[name].weight.detach().abs().amax(0) for name in group]).amax(0)
        smoothing = _smoothing(torch.maximum(low.abs(), high.abs()), weights, _SMOOTHING[granularity])
        grid = ActivationGrid(Ranges(float((low / smoothing).min()), float((high / smoothing).max())), smoothing)
        for name in group:
            one = TrainedLinear(linears[name], grid, per_channel=granularity is Granularity.PER_CHANNEL)
            model.set_submodule(name, one)


def _smoothing(activations: torch.Tensor, weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """s_j = max|x_j|^α / max|W_j|^(1-α), at least 1e-5 of its mean (Xiao 2023)."""
    found = activations.clamp(min=1e-5) ** alpha / weights.clamp(min=1e-5) ** (1.0 - alpha)
    return found.clamp(min=1e-5 * float(found.mean()))


class _Seen:
    """Ranges of each module's inputs, channel by channel, and which modules read the same tensor."""

    def __init__(self, linears: Mapping[str, nn.Module]) -> None:
        self.mask = torch.empty(0, dtype=torch.bool)
        self._linears = linears
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._inputs: dict[str, torch.Tensor] = {}
        self._ranges: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in linears}

    def __enter__(self) -> None:
        def watch(name: str) -> object:
            def hook(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
                values = given[0]
                self._inputs[name] = values
                real = values[self.mask] if values.shape[:2] == self.mask.shape else values.flatten(0, -2)
                self._ranges[name].append((real.amin(0), real.amax(0)))

            return hook

        self._hooks = [module.register_forward_pre_hook(watch(name)) for name, module in self._linears.items()]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def groups(self) -> list[list[str]]:
        """Modules by the tensor that they read, in the model's order."""
        found: dict[int, list[str]] = {}
        for name in self._linears:
            found.setdefault(id(self._inputs[name]), []).append(name)
        return list(found.values())

    def extremes(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Least and greatest value of each input channel, averaged over the batches."""
        low, high = zip(*self._ranges[name], strict=True)
        return torch.stack(low).mean(0), torch.stack(high).mean(0)


def _loss(
    model: transformers.PreTrainedModel, teacher: transformers.PreTrainedModel, checkpoint: Path, task: Task
) -> Callable[[Batch], torch.Tensor]:
    """How far the model's answers and states are from the teacher's on a batch."""
    pooling, _ = inspect(checkpoint).pooling()

    def loss(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            wanted = answer(teacher, batch, _OBJECTIVES)
        return imitation_loss(
            answer(model, batch, _OBJECTIVES), wanted, task, batch, _OBJECTIVES,
            temperature=_TEMPERATURE, alpha=1.0, pooling=pooling,
        )  # fmt: skip

    return loss


def _mean(loss: Callable[[Batch], torch.Tensor], rows: list[Batch]) -> float:
    with torch.no_grad():
        return float(torch.stack([loss(batch) for batch in rows]).mean())


def _extract(model: transformers.PreTrainedModel, names: list[str]) -> dict[str, torch.Tensor]:
    """The quantizers; the model's modules become plain again, with the weights as they will be computed with."""
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name in names:
            trained: Any = model.get_submodule(name)
            levels, scales, grid = trained.levels(), trained.scale(), trained.grid
            plain = nn.Linear(trained.in_features, trained.out_features, bias=trained.bias is not None, device="meta")
            plain.weight = nn.Parameter(levels * scales / grid.smoothing)
            plain.bias = trained.bias
            model.set_submodule(name, plain)
            found |= {
                f"{name}:levels": levels.to(torch.int8),
                f"{name}:scales": scales.flatten().clone(),
                f"{name}:smoothing": grid.smoothing.clone(),
                f"{name}:scale": grid.scale().reshape(1),
                f"{name}:zero": grid.zero().to(torch.int32).reshape(1),
            }
    return found
