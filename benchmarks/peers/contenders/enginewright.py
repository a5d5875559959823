"""Our engine with the runner that serves it, in process: no server, as none of the others has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_serving.triton.runner import load_runner


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Any:
    """`folder` is the engine's: engine.json, engine/, tokenizer/. Pooling is inside the graph and counts."""
    described = EngineDescription.model_validate_json((folder / ENGINE_DESCRIPTION).read_bytes())
    runner = load_runner(folder, described, threads)
    return lambda ids, mask: runner.run({"input_ids": ids, "attention_mask": mask})
