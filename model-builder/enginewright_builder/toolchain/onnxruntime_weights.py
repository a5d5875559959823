"""Weights of an ONNX graph: found, replaced for a moment, stored in few bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.weight_only import Codes, Matrix, Moments
from enginewright_builder.toolchain.weight_only.graph import Accumulated, by_row
from enginewright_builder.toolchain.weight_only.grid import Weights

ACCURACY_LEVEL = 4
"""MatMulNBits computes on activations rounded to INT8 per block: see docs/techniques/quantization.md for what it costs
and gains. 1 would keep them in float32."""
_CHANNEL_BLOCK = 128
"""The operator knows blocks only: a channel with one scale is stored as blocks of this size that repeat it."""
_MICROSOFT = "com.microsoft"
_PROBES = 16


class OnnxWeights:
    """A float32 graph. Codes become MatMulNBits nodes; embedding tables become rows of INT8 with a scale each."""

    fractional = False

    def __init__(self, graph: Path) -> None:
        self._model = onnx.load(graph)
        self._session: Any = None

    def matrices(self) -> list[Matrix]:
        """Every product with a constant, in execution order."""
        constants = _constants(self._model)
        return [
            Matrix(node.name, module_of(node.name), node.input[0], np.ascontiguousarray(constants[node.input[1]].T))
            for node in _products(self._model, constants)
        ]

    def tables(self) -> list[Matrix]:
        """Embedding tables."""
        constants = _constants(self._model)
        return [
            Matrix(node.name, module_of(node.name), "", constants[node.input[0]])
            for node in _lookups(self._model, constants)
        ]

    def moments(self, sources: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Moments]:
        """Of the named activations, row by row."""
        model = _copy(self._model)
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sources)
        session = _session(model)
        sums = [Accumulated() for _ in sources]
        for feed in feeds:
            for total, activations in zip(sums, session.run(list(sources), feed), strict=True):
                total.add(activations)
        return {source: total.moments() for source, total in zip(sources, sums, strict=True)}

    def probes(self, calibration: Sequence[Feed]) -> Sequence[Feed]:
        """A few rows."""
        return calibration[:_PROBES]

    def answers(self, feeds: Sequence[Feed], replaced: Mapping[str, Weights]) -> NDArray[np.float32]:
        """One row a feed, or a token of it, with some matrices replaced.

        Initializers that are inputs too have a default.
        """
        constants = _constants(self._model)
        inputs = {node.name: node.input[1] for node in _products(self._model, constants)}
        if self._session is None:
            model = _copy(self._model)
            model.graph.input.extend(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, constants[name].shape)
                for name in dict.fromkeys(inputs.values())
            )
            self._session = _session(model)
        given = {inputs[name]: np.ascontiguousarray(weights.T) for name, weights in replaced.items()}
        return by_row([self._session.run(None, {**feed, **given})[0] for feed in feeds])

    def store(
        self, into: Path, packed: Mapping[str, Codes], halved: frozenset[str], divisors: Mapping[str, Weights]
    ) -> None:
        """Write the graph."""
        model = _copy(self._model)
        constants = _constants(model)
        products = {node.name for node in _products(model, constants)}
        lookups = {node.name for node in _lookups(model, constants)}
        added: list[Any] = []
        nodes: list[Any] = []
        divided: set[str] = set()
        for node in model.graph.node:
            if node.name in packed and node.name in lookups:
                nodes += _lookup(node, packed[node.name], added)
            elif node.name in packed and node.name in products:
                source = node.input[0]
                if source in divisors:
                    if source not in divided:
                        nodes.append(_divided(source, divisors[source], added))
                        divided.add(source)
                    node.input[0] = f"{source}_divided"
                nodes.append(_product(node, packed[node.name], added))
            elif node.name in halved:
                nodes += [_half(node, constants[node.input[1]], added), node]
            else:
                nodes.append(node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        _replace_constants(model, added)
        if all(opset.domain != _MICROSOFT for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
        onnx.save(model, into)


def module_of(name: str) -> str:
    """Node names look like `/model/encoder/layer.0/attention/self/query/MatMul`."""
    return name.strip("/").rpartition("/")[0].replace("/", ".").removeprefix("model.")


def _products(model: onnx.ModelProto, constants: Mapping[str, Weights]) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]


def _lookups(model: onnx.ModelProto, constants: Mapping[str, Weights]) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == "Gather" and node.input[0] in constants]


def _constants(model: onnx.ModelProto) -> dict[str, Weights]:
    """Float matrices by name."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
    }


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _product(node: Any, codes: Codes, added: list[Any]) -> Any:
    levels, scales, zeros = _blocks(codes)
    outputs, _, size = levels.shape
    bits = codes.grid.bits
    inputs = [node.input[0], f"{node.name}/levels", f"{node.name}/scales"]
    added.append(numpy_helper.from_array(_pack(levels, bits), inputs[1]))
    added.append(numpy_helper.from_array(scales.reshape(-1), inputs[2]))
    if not codes.grid.symmetric:
        inputs.append(f"{node.name}/zero_points")
        added.append(numpy_helper.from_array(_pack(zeros, bits).reshape(-1), inputs[3]))
    return helper.make_node(
        "MatMulNBits",
        inputs,
        list(node.output),
        name=node.name,
        domain=_MICROSOFT,
        K=codes.levels.shape[1] * codes.levels.shape[2],
        N=outputs,
        bits=bits,
        block_size=size,
        accuracy_level=ACCURACY_LEVEL,
    )


def _blocks(codes: Codes) -> tuple[NDArray[np.uint8], Weights, NDArray[np.uint8]]:
    """Levels [outputs, blocks, size], scales and zero points [outputs, blocks]."""
    outputs, groups, size = codes.levels.shape
    zeros = np.asarray(codes.zero_points, np.uint8)
    if groups > 1:
        return codes.levels, codes.scales, zeros
    missing = -size % _CHANNEL_BLOCK
    # What is added to the last block is the level of zero, and the operator knows where K ends.
    filler = np.broadcast_to(zeros[:, :1], (outputs, missing))
    whole = np.concatenate([codes.levels[:, 0], filler], axis=1).reshape(outputs, -1, _CHANNEL_BLOCK)
    repeat = whole.shape[1]
    return whole, np.repeat(codes.scales, repeat, axis=1), np.repeat(zeros, repeat, axis=1)


def _pack(levels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Levels [..., n] as bytes [..., ⌈n·bits/8⌉], the first level in the lowest bits."""
    per_byte = 8 // bits
    missing = -levels.shape[-1] % per_byte
    padded = np.pad(levels, [(0, 0)] * (levels.ndim - 1) + [(0, missing)])
    parts = padded.reshape(*padded.shape[:-1], -1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    return np.asarray(np.bitwise_or.reduce(parts << shifts, axis=-1), np.uint8)


def _lookup(node: Any, codes: Codes, added: list[Any]) -> list[Any]:
    name = node.name
    centred = (codes.levels.reshape(codes.levels.shape[0], -1).astype(np.int16) - codes.grid.middle).astype(np.int8)
    added.append(numpy_helper.from_array(centred, f"{name}/rows"))
    added.append(numpy_helper.from_array(codes.scales.reshape(-1, 1), f"{name}/row_scales"))
    return [
        helper.make_node("Gather", [f"{name}/rows", node.input[1]], [f"{name}/levels"], name=f"{name}/rows", axis=0),
        helper.make_node("Gather", [f"{name}/row_scales", node.input[1]], [f"{name}/scales"], name=f"{name}/scales"),
        helper.make_node("Cast", [f"{name}/levels"], [f"{name}/values"], name=f"{name}/Cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}/values", f"{name}/scales"], list(node.output), name=name),
    ]


def _half(node: Any, weights: Weights, added: list[Any]) -> Any:
    added.append(numpy_helper.from_array(weights.astype(np.float16), f"{node.name}/half"))
    cast = helper.make_node(
        "Cast", [f"{node.name}/half"], [f"{node.name}/weights"], name=f"{node.name}/Cast", to=TensorProto.FLOAT
    )
    node.input[1] = f"{node.name}/weights"
    return cast


def _divided(source: str, divisors: Weights, added: list[Any]) -> Any:
    added.append(numpy_helper.from_array((1.0 / divisors).astype(np.float32), f"{source}_divisors"))
    return helper.make_node("Mul", [source, f"{source}_divisors"], [f"{source}_divided"], name=f"{source}_divided")


def _replace_constants(model: onnx.ModelProto, added: Sequence[Any]) -> None:
    """Initializers that a node still reads, and the new ones."""
    read = {name for node in model.graph.node for name in node.input} | {one.name for one in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *added])
