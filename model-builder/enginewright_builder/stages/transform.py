"""Distil, prune, factorize, learn: checkpoint → checkpoint, in this order. The work is the toolchain's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.identity import digest_of
from enginewright_api.optimization import Distillation, LowRank, Pruning, Quantization
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import EarlyExit
from enginewright_builder.datasets.draw import Drawn
from enginewright_builder.digests import tree_digest
from enginewright_builder.stages.stage import Output
from enginewright_builder.toolchain.client import Toolchain
from enginewright_builder.toolchain.tasks import TransformTask

Told = Callable[[float, str], None]
Settings = Distillation | Pruning | LowRank | EarlyExit | Quantization


@dataclass(frozen=True, slots=True)
class Transform:
    """One step. `teachers` are checkpoints; a student with weights of its own is the `checkpoint`."""

    name: str
    checkpoint: Output
    settings: Settings
    task: Task
    rows: Drawn
    toolchain_digest: str
    toolchain: Toolchain
    told: Told
    teachers: tuple[Output, ...] = ()
    shared: bool = True

    def key(self) -> str:
        """By checkpoints, settings, the rows themselves and the toolchain."""
        return digest_of(
            {
                "stage": self.name,
                "checkpoint": self.checkpoint.result["sourceDigest"],
                "teachers": [teacher.result["sourceDigest"] for teacher in self.teachers],
                "settings": self.settings.wire(),
                "task": self.task.value,
                "rows": self.rows.digest,
                "toolchain": self.toolchain_digest,
            }
        )

    def run(self, into: Path) -> dict[str, Any]:
        """Result: sourceDigest and what the step has to tell, such as parameters before and after."""
        settings = self.settings
        found = self.toolchain.perform(
            TransformTask(
                checkpoint=self.checkpoint.folder,
                model_task=self.task,
                distillation=settings if isinstance(settings, Distillation) else None,
                pruning=settings if isinstance(settings, Pruning) else None,
                low_rank=settings if isinstance(settings, LowRank) else None,
                quantization=settings if isinstance(settings, Quantization) else None,
                early_exit=settings if isinstance(settings, EarlyExit) else None,
                teachers=[teacher.folder for teacher in self.teachers],
                rows=list(self.rows.rows),
                into=into,
            ),
            self.told,
        )
        return {"message": transform_told(found), **found, "sourceDigest": tree_digest(into)}


def needs_training(recipe: Recipe) -> bool:
    """Whether a step learns from rows or looks at them."""
    pruning = recipe.pruning
    looks = pruning is not None and pruning.looks_at_rows
    return looks or recipe.distillation is not None or recipe.early_exit is not None


def transform_told(found: Mapping[str, object]) -> str:
    """`22.7 M → 17.4 M parameters`, or of quantisation-aware training `loss 0.0546 → 0.0285 in 8 steps on 32 rows`."""
    before, after = found.get("parametersBefore"), found.get("parameters")
    if isinstance(before, int) and isinstance(after, int):
        return f"{before / 1e6:.1f} M → {after / 1e6:.1f} M parameters"
    before, after = found.get("lossBefore"), found.get("lossAfter")
    if isinstance(before, float) and isinstance(after, float):
        return f"loss {before:.4f} → {after:.4f} in {found['trainingSteps']} steps on {found['trainingRows']} rows"
    return ""
