"""What the toolchain process is asked to do, as types that travel as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from enginewright_api.engine_description import EngineDescription
from enginewright_api.model_base import ApiModel
from enginewright_api.optimization import Distillation, LowRank, Pruning, Quantization
from enginewright_api.recipe import Task as ModelTask
from enginewright_api.serving_spec import EarlyExit
from enginewright_builder.datasets.rows import Row, Text


class TransformTask(ApiModel):
    """Checkpoint to checkpoint."""

    kind: Literal["transform"] = "transform"
    checkpoint: Path
    model_task: ModelTask
    distillation: Distillation | None = None
    pruning: Pruning | None = None
    low_rank: LowRank | None = None
    quantization: Quantization | None = None
    """Quantisation-aware training."""
    early_exit: EarlyExit | None = None
    teachers: list[Path] = Field(default_factory=list)
    rows: list[Row]
    into: Path


class ExportTask(ApiModel):
    """Checkpoint to graph."""

    kind: Literal["export"] = "export"
    checkpoint: Path
    description: EngineDescription
    into: Path


class QuantizeTask(ApiModel):
    """Graph to graph."""

    kind: Literal["quantize"] = "quantize"
    graph: Path
    tokenizer: Path
    description: EngineDescription
    quantization: Quantization
    texts: list[Text]
    into: Path


class CompileTask(ApiModel):
    """Graph to engine, and a first run of it."""

    kind: Literal["compile"] = "compile"
    graph: Path
    tokenizer: Path
    description: EngineDescription
    probe: list[Text]
    into: Path


AnyTask = TransformTask | ExportTask | QuantizeTask | CompileTask
TASK: TypeAdapter[AnyTask] = TypeAdapter(Annotated[AnyTask, Field(discriminator="kind")])


class Progress(ApiModel):
    """A long task moved on; any number of these come before the reply."""

    progress: float
    message: str = ""


class Reply(ApiModel):
    """Result or error of one task."""

    result: dict[str, object] = Field(default_factory=dict)
    error_class: str | None = None
    reason: str = ""
    message: str = ""
