"""ONNX Runtime on CPU."""

from __future__ import annotations

from pathlib import Path

from enginewright_api.engine_description import EngineDescription
from enginewright_serving.triton.feeds import feed
from enginewright_serving.triton.runner import Tensors, Vectors

SLOWER = ("SkipLayerNormFusion",)
"""Passes of its optimiser that cost time on CPUs: the node for residual and normalisation takes longer than the two
that it replaces (`python -m benchmarks.fusing`)."""


class OnnxRuntimeRunner:
    """One session; Triton runs one execution at a time, so all threads go into one operator."""

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(entry), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER
        )
        self._inputs = engine.inputs
        self._output = engine.output

    def run(self, tensors: Tensors) -> Vectors:
        vectors: Vectors = self._session.run([self._output], feed(self._inputs, tensors))[0]
        return vectors
