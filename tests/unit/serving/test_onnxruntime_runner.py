"""ONNX Runtime's own optimiser, kept from what is slower on CPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from enginewright_api.engine_description import EngineDescription
from enginewright_serving.triton.onnxruntime_runner import OnnxRuntimeRunner

DESCRIPTION = EngineDescription.model_validate(
    {
        "task": "Embedding",
        "backend": "ONNXRuntime",
        "entry": "model.onnx",
        "inputs": ["input_ids"],
        "output": "normalized",
        "outputDimension": 8,
        "limits": {},
        "runtimePackage": "onnxruntime",
        "runtimeVersion": "0",
    }
)


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    """Two lookups, added and normalised: ONNX Runtime knows the pattern."""
    rng = np.random.default_rng(0)
    tables = [
        helper.make_tensor(
            name, TensorProto.FLOAT, (16, 8), rng.normal(size=128).astype(np.float32).tobytes(), raw=True
        )
        for name in ("first", "second")
    ]
    gain = [helper.make_tensor(name, TensorProto.FLOAT, (8,), [value] * 8) for name, value in (("g", 1.0), ("b", 0.0))]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["first", "input_ids"], ["a"]),
            helper.make_node("Gather", ["second", "input_ids"], ["c"]),
            helper.make_node("Add", ["a", "c"], ["sum"]),
            helper.make_node("LayerNormalization", ["sum", "g", "b"], ["normalized"], axis=-1),
        ],
        "residual",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("normalized", TensorProto.FLOAT, ["batch", "tokens", 8])],
        [*tables, *gain],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_residuals_and_normalisation_stay_two_nodes(
    residual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def operators(name: str) -> set[str]:
        return {node.op_type for node in onnx.load(tmp_path / name).graph.node}

    plain = onnxruntime.SessionOptions()
    plain.optimized_model_filepath = str(tmp_path / "plain.onnx")
    session = onnxruntime.InferenceSession(residual, plain, providers=["CPUExecutionProvider"])
    assert "SkipLayerNormalization" in operators("plain.onnx"), "or there is nothing to keep it from"

    class Kept(onnxruntime.SessionOptions):  # type: ignore[misc]  # onnxruntime is untyped
        def __init__(self) -> None:
            super().__init__()
            self.optimized_model_filepath = str(tmp_path / "kept.onnx")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Kept)
    runner = OnnxRuntimeRunner(residual, DESCRIPTION, threads=1)
    assert operators("kept.onnx") == {"Gather", "Add", "LayerNormalization"}
    ids = np.array([[1, 2, 3]])
    answered = runner.run({"input_ids": ids})
    np.testing.assert_allclose(answered, session.run(None, {"input_ids": ids})[0], atol=1e-5)
