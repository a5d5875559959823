"""Weights that an ONNX graph quantises become constants in 8 bits; the answers stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginewright_builder.toolchain.onnxruntime_packing import store_quantized

INPUTS, OUTPUTS = 6, 4
NOISE = np.random.default_rng(0)
WEIGHT = NOISE.normal(size=(INPUTS, OUTPUTS)).astype(np.float32)
VALUES = NOISE.normal(size=(3, INPUTS)).astype(np.float32)


def product(path: Path, scales: Any) -> Path:
    """Activations and weights through QuantizeLinear and back, as the exporter writes fake quantisation."""
    zeros = np.zeros(scales.shape, np.int32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_levels"]),
        helper.make_node("DequantizeLinear", ["x_levels", "x_scale", "x_zero"], ["x_back"]),
        helper.make_node("Constant", [], ["zeros"], value=numpy_helper.from_array(zeros)),
        helper.make_node("Cast", ["zeros"], ["w_zero"], to=TensorProto.INT8),
        helper.make_node("QuantizeLinear", ["weight", "w_scale", "w_zero"], ["w_levels"], axis=1),
        helper.make_node("DequantizeLinear", ["w_levels", "w_scale", "w_zero"], ["w_back"], axis=1),
        helper.make_node("MatMul", ["x_back", "w_back"], ["y"]),
    ]
    constants = {
        "weight": WEIGHT,
        "w_scale": scales,
        "x_scale": np.array(0.02, np.float32),
        "x_zero": np.array(128, np.uint8),
    }
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def answer(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": VALUES})[0]


@pytest.mark.parametrize(
    "scales", [np.array(0.02, np.float32), (np.abs(WEIGHT).max(0) / 127).astype(np.float32)], ids=["one", "per output"]
)
def test_levels_are_stored_and_answers_stay(tmp_path: Path, scales: Any) -> None:
    plain, packed = product(tmp_path / "plain.onnx", scales), tmp_path / "packed.onnx"
    assert store_quantized(plain, packed) == 1
    model = onnx.load(packed)
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    assert "weight" not in stored
    assert (stored["w_levels"].dtype, stored["w_levels"].shape) == (np.int8, WEIGHT.shape)
    np.testing.assert_allclose(stored["w_levels"] * scales, WEIGHT.clip(-128 * scales, 127 * scales), atol=scales.max())
    # Activations are still quantised as they come.
    assert [node.op_type for node in model.graph.node].count("QuantizeLinear") == 1
    np.testing.assert_allclose(answer(packed), answer(plain), atol=1e-6)
