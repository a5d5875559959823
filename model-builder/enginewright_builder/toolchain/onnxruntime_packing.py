"""Weights that an ONNX graph quantises as it runs, stored as the whole numbers that they are quantised to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper


def store_quantized(source: Path, target: Path) -> int:
    """`QuantizeLinear` of a constant becomes a constant in 8 bits, its `DequantizeLinear` stays; how many did."""
    model = onnx.load(source)
    graph = model.graph
    constants = _constants(graph)
    packed = []
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in constants:
            continue
        values, scale, zero = (constants[name] for name in node.input)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [1] * values.ndim
        if scale.ndim:
            shape[axis] = scale.size
        limits = np.iinfo(zero.dtype)
        levels = np.rint(values / scale.reshape(shape)) + zero.astype(np.float32).reshape(shape)
        stored = np.clip(levels, limits.min, limits.max).astype(zero.dtype)
        graph.initializer.append(numpy_helper.from_array(stored, node.output[0]))
        packed.append(node)
    for node in packed:
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for initializer in [item for item in graph.initializer if item.name not in read]:
        graph.initializer.remove(initializer)
    onnx.save(model, target)
    return len(packed)


def _constants(graph: onnx.GraphProto) -> dict[str, Any]:
    """Every value that no input changes, as the exporter writes them: initializers, Constant, casts of those."""
    found = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
            if value is not None:
                found[node.output[0]] = numpy_helper.to_array(value)
        elif node.op_type in ("Identity", "Cast") and node.input[0] in found:
            values = found[node.input[0]]
            to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
            found[node.output[0]] = values if to is None else values.astype(onnx.helper.tensor_dtype_to_np_dtype(to))
    return found
