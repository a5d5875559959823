"""The one face of all compilers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Quantization
from enginewright_api.recipe import Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.toolchain.exiting_backend import ExitingBackend
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.onnxruntime_backend import ONNXRuntimeBackend
from enginewright_builder.toolchain.openvino_backend import OpenVINOBackend
from enginewright_builder.toolchain.openvino_generation import OpenVINOGenerationBackend
from enginewright_builder.toolchain.tensorrt_backend import TensorRTBackend
from enginewright_builder.toolchain.tensorrt_llm_backend import TensorRTLLMBackend
from enginewright_builder.toolchain.torch_backend import TorchBackend


class EngineBackend(Protocol):
    """Checkpoint → graph → quantised graph → what the server loads."""

    entry: str
    """File that the server loads."""
    package: str
    """Distribution that loads it."""

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> dict[str, object] | None:
        """Graph in float32; what is worth telling. Raises DeterministicError UnsupportedOperator."""

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """Graph in the wanted format."""

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """What the server loads."""

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Outputs for inputs, as the server gives them, in this process; the engine is loaded once."""


BACKENDS: dict[Backend, EngineBackend] = {
    Backend.OPENVINO: OpenVINOBackend(),
    Backend.ONNX_RUNTIME: ONNXRuntimeBackend(),
    Backend.TENSORRT: TensorRTBackend(),
    Backend.TORCH: TorchBackend(),
}
"""Of encoders."""

GENERATORS: dict[Backend, EngineBackend] = {
    Backend.OPENVINO: OpenVINOGenerationBackend(),
    Backend.TENSORRT_LLM: TensorRTLLMBackend(),
}
"""Of text generation."""


def backend_of(backend: Backend, task: Task = Task.EMBEDDING) -> EngineBackend:
    """Raises DeterministicError ToolchainMissing for a backend that this builder does not have."""
    table = GENERATORS if task is Task.TEXT_GENERATION else BACKENDS
    found = table.get(backend)
    if found is None:
        names = ", ".join(sorted(name.value for name in table))
        raise DeterministicError(
            "ToolchainMissing",
            f"engine.backend: this builder has no compiler for {backend.value} and task {task.value}; it has {names}",
        )
    return found


def backend_for(description: EngineDescription) -> EngineBackend:
    """The compiler of an engine, as a whole. Raises as `backend_of`, and for a backend without early exits."""
    found = backend_of(description.backend, description.task)
    if description.early_exit is None:
        return found
    if not isinstance(found, OpenVINOBackend | ONNXRuntimeBackend):
        raise DeterministicError("ToolchainMissing", f"runtime.earlyExit: backend {description.backend.value} has none")
    return ExitingBackend(found)
