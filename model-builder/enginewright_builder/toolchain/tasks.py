"""What the toolchain process is asked to do, as types that travel as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from enginewright_api.engine_description import EngineDescription
from enginewright_api.model_base import ApiModel
from enginewright_api.optimization import Quantization


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
    texts: list[str]
    into: Path


class CompileTask(ApiModel):
    """Graph to engine, and a first run of it."""

    kind: Literal["compile"] = "compile"
    graph: Path
    tokenizer: Path
    description: EngineDescription
    probe: list[str]
    into: Path


Task = Annotated[ExportTask | QuantizeTask | CompileTask, Field(discriminator="kind")]
TASK: TypeAdapter[ExportTask | QuantizeTask | CompileTask] = TypeAdapter(Task)


class Reply(ApiModel):
    """Result or error of one task."""

    result: dict[str, object] = Field(default_factory=dict)
    error_class: str | None = None
    reason: str = ""
    message: str = ""
