"""TensorRT: torch → ONNX → 16 bits or quantise/dequantise pairs by ModelOpt (on any machine) → plan (on a GPU)."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format, Quantization, QuantizationMethod
from enginewright_builder.nvidia_runtime import PLAN, toolchain_missing
from enginewright_builder.tensorrt.build import build_plan
from enginewright_builder.tensorrt.profiles import fitting, profiles
from enginewright_builder.toolchain.graph import load_encoder
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.onnx_graph import write_onnx
from enginewright_builder.toolchain.onnxruntime_backend import GRAPH, module_names
from enginewright_builder.toolchain.scopes import excluded_nodes

PACKAGE = "tensorrt"
TIMING_CACHE = "timing.cache"
_QUANTIZED = ["MatMul", "Gemm"]
_MODES = {Format.INT8: "int8", Format.FP8: "fp8"}
_CALIBRATIONS = {QuantizationMethod.MIN_MAX: "max", QuantizationMethod.ENTROPY: "entropy"}
_SIXTEEN_BITS = {Format.FP16: "fp16", Format.BF16: "bf16"}


class TensorRTBackend:
    """Encoders on NVIDIA GPUs."""

    graph = GRAPH
    entry = PLAN
    package = PACKAGE

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> None:
        """ONNX in float32 with dynamic batch and tokens, standard operators only: TensorRT fuses by itself."""
        write_onnx(load_encoder(checkpoint, description), description, into / GRAPH)

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """Graph whose types say its precision. Returns what is worth telling."""
        source, target = graph / GRAPH, into / GRAPH
        if quantization.format in _SIXTEEN_BITS:
            _convert(source, target, _SIXTEEN_BITS[quantization.format])
            return {"excluded": []}
        mode = _MODES.get(quantization.format)
        if mode is None:
            target.hardlink_to(source)
            return {"excluded": []}
        if not calibration:
            raise DeterministicError(
                "CalibrationEmpty",
                "optimization.quantization.calibration: no row to measure ranges on; give a data set",
            )
        excluded = excluded_nodes(module_names(source), quantization.exclude)
        method = _CALIBRATIONS[quantization.method]
        _insert_pairs(source, target, mode=mode, method=method, calibration=calibration, excluded=excluded)
        return {"excluded": excluded}

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """A plan for the GPU in this machine. Raises DeterministicError ToolchainMissing naming the image."""
        if importlib.util.find_spec(PACKAGE) is None:
            raise toolchain_missing(description, PACKAGE, graph / GRAPH)
        cache = into.with_name(TIMING_CACHE)
        build_plan(graph / GRAPH, into / PLAN, cache, description.inputs, profiles(description.limits))

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Outputs through Polygraphy's runner, [1, dimension] each, under the profile that fits the input."""
        import numpy as np
        from polygraphy.backend.common import BytesFromPath
        from polygraphy.backend.trt import EngineFromBytes, TrtRunner

        plan = EngineFromBytes(BytesFromPath(str(engine / PLAN)))
        for feed in feeds:
            shape = feed[description.inputs[0]].shape
            number = fitting(profiles(description.limits), (shape[0], shape[1]))
            with TrtRunner(plan, optimization_profile=number) as runner:
                answer = np.array(runner.infer(dict(feed))[description.output])
            yield answer


def _convert(source: Path, target: Path, low: str) -> None:
    """Weights and products in 16 bits; inputs, outputs and what would overflow stay as they are."""
    import onnx
    from modelopt.onnx.autocast import convert_to_mixed_precision

    onnx.save(convert_to_mixed_precision(str(source), low_precision_type=low, keep_io_types=True), target)


def _insert_pairs(
    source: Path, target: Path, *, mode: str, method: str, calibration: Sequence[Feed], excluded: Sequence[str]
) -> None:
    """Only matrix products: quantising every operation ruins an embedding (cosine .28 was measured on MiniLM)."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(source),
        quantize_mode=mode,
        calibration_data_reader=_Rows(calibration),
        calibration_method=method,
        calibration_eps=["cpu"],
        op_types_to_quantize=_QUANTIZED,
        nodes_to_exclude=[f"^{name}$" for name in excluded] or None,
        high_precision_dtype="fp16",
        output_path=str(target),
        log_level="ERROR",
    )
    # Beside its output the library leaves the graph it worked on.
    for path in target.parent.iterdir():
        if path != target:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Rows:
    """One row at a time, as ONNX Runtime's calibrator asks for them."""

    def __init__(self, rows: Sequence[Feed]) -> None:
        self._rows = rows
        self._next = iter(rows)

    def get_next(self) -> Feed | None:
        return next(self._next, None)

    def rewind(self) -> None:
        self._next = iter(self._rows)

    def get_first(self) -> Feed:
        return self._rows[0]
