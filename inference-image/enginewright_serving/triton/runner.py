"""What runs an encoder: one Protocol, one file a backend, loaded late so that only one toolchain is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from enginewright_api.engine_description import EngineDescription, ExitPart
from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Backend

Tensors = Mapping[str, npt.NDArray[Any]]
"""By the names of a graph's inputs: input_ids, attention_mask, token_type_ids, int64 [batch, tokens]."""
Vectors = npt.NDArray[np.float32]


class Runner(Protocol):
    """Runs one padded batch at a time; not shared between threads."""

    def run(self, tensors: Tensors) -> Vectors:
        """[batch, tokens] in, [batch, dimension] out. The result may be overwritten by the next call."""
        ...


def load_runner(folder: Path, engine: EngineDescription, threads: int) -> Runner:
    """The runner of the engine's backend. `folder` holds engine.json and engine/."""
    if engine.early_exit is not None and engine.early_exit.part is None:
        from enginewright_serving.triton.exiting_runner import ExitingRunner

        first, head, rest = (load_runner(folder, engine.exit_part(part), threads) for part in ExitPart)
        return ExitingRunner(first, head, rest, engine.early_exit.threshold)
    if engine.backend is Backend.OPENVINO:
        from enginewright_serving.triton.openvino_runner import OpenVinoRunner

        return OpenVinoRunner(folder / "engine" / engine.entry, engine, threads)
    if engine.backend is Backend.ONNX_RUNTIME:
        from enginewright_serving.triton.onnxruntime_runner import OnnxRuntimeRunner

        return OnnxRuntimeRunner(folder / "engine" / engine.entry, engine, threads)
    if engine.backend is Backend.TORCH and engine.entry.endswith(".pt2"):
        from enginewright_serving.triton.aoti_runner import AotiRunner

        return AotiRunner(folder / "engine" / engine.entry, engine, threads)
    if engine.backend is Backend.TORCH:
        from enginewright_serving.triton.torch_runner import TorchRunner

        return TorchRunner(folder / "engine" / engine.entry, engine, threads)
    raise DeterministicError("FeatureNotAvailable", f"engine.json: backend {engine.backend} has no runner here")
