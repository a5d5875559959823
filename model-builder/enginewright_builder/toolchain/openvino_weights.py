"""Weights of an OpenVINO graph: found, replaced for a moment, stored in few bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.openvino_names import canonical_names
from enginewright_builder.toolchain.weight_only import Codes, Matrix, Moments
from enginewright_builder.toolchain.weight_only.graph import Accumulated
from enginewright_builder.toolchain.weight_only.grid import Weights

if TYPE_CHECKING:
    import openvino

_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVINOWeights:
    """A float32 IR. Codes become the constants that the CPU plugin's compressed matrix products know:

    constant (u2, u4, i8) → convert → subtract zero point → multiply by scale → reshape (groups to rows).
    """

    def __init__(self, graph: Path) -> None:
        self._path = graph
        self._swap: Swap | None = None

    def matrices(self) -> list[Matrix]:
        """Every product with a constant, in execution order."""
        return [_matrix(node) for node in _products(self._read())]

    def tables(self) -> list[Matrix]:
        """Embedding tables."""
        return [
            Matrix(node.get_friendly_name(), module_of(node.get_friendly_name()), "", _constant(node, 0))
            for node in _lookups(self._read())
        ]

    def moments(self, sources: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Moments]:
        """Of the named activations, row by row."""
        import openvino as ov

        model = self._read()
        outputs = {_source(node): node.input_value(0) for node in _products(model)}
        wanted = [outputs[source] for source in sources]
        first = len(model.outputs)
        model.add_outputs(wanted)
        request = ov.Core().compile_model(model, "CPU", _EXACT).create_infer_request()
        sums = [Accumulated() for _ in sources]
        for feed in feeds:
            request.infer(feed, share_inputs=True)
            for index, total in enumerate(sums):
                total.add(request.get_output_tensor(first + index).data)
        return {source: total.moments() for source, total in zip(sources, sums, strict=True)}

    def answers(self, feeds: Sequence[Feed], replaced: Mapping[str, Weights]) -> NDArray[np.float32]:
        """[feeds, dimension], with some matrices replaced."""
        if self._swap is None:
            self._swap = Swap(self._read())
        return self._swap.answers(feeds, replaced)

    def store(
        self, into: Path, packed: Mapping[str, Codes], halved: frozenset[str], divisors: Mapping[str, Weights]
    ) -> None:
        """Write the IR."""
        import openvino as ov

        model = self._read()
        for node in _lookups(model):
            codes = packed.get(node.get_friendly_name())
            if codes is not None:
                node.input(0).replace_source_output(_decompressed(codes).output(0))
        divided: dict[str, Any] = {}
        for node in _products(model):
            name, source = node.get_friendly_name(), _source(node)
            if name in packed:
                if source in divisors and source not in divided:
                    divided[source] = _divided(node.input_value(0), divisors[source])
                _with_weights(node, divided.get(source, node.input_value(0)), _decompressed(packed[name]))
            elif name in halved:
                _with_weights(node, node.input_value(0), _half(_matrix(node).weights))
        ov.save_model(canonical_names(model), into, compress_to_fp16=False)

    def _read(self) -> openvino.Model:
        import openvino as ov

        return ov.Core().read_model(self._path)


class Swap:
    """The graph with its matrices as inputs: compiled once, whatever is tried."""

    def __init__(self, model: openvino.Model) -> None:
        import openvino as ov
        from openvino import opset13 as opset

        self._weights: dict[str, NDArray[np.float32]] = {}
        self._turned: dict[str, bool] = {}
        parameters = []
        for node in _products(model):
            name = node.get_friendly_name()
            self._turned[name] = not node.get_attributes()["transpose_b"]
            self._weights[name] = node.input_value(1).get_node().data
            parameter = opset.parameter(self._weights[name].shape, np.float32)
            parameter.output(0).get_tensor().set_names({name})
            node.input(1).replace_source_output(parameter.output(0))
            parameters.append(parameter)
        model.add_parameters(parameters)
        model.validate_nodes_and_infer_types()
        self._request = ov.Core().compile_model(model, "CPU", _EXACT).create_infer_request()
        for name in self._weights:
            self._set(name, self._weights[name])

    def answers(self, feeds: Sequence[Feed], replaced: Mapping[str, Weights]) -> NDArray[np.float32]:
        for name, weights in replaced.items():
            self._set(name, weights.T if self._turned[name] else weights)
        try:
            return np.concatenate([self._answer(feed) for feed in feeds])
        finally:
            for name in replaced:
                self._set(name, self._weights[name])

    def _answer(self, feed: Feed) -> NDArray[np.float32]:
        self._request.infer(feed)
        return np.array(self._request.get_output_tensor(0).data)

    def _set(self, name: str, weights: Weights) -> None:
        import openvino as ov

        self._request.set_tensor(name, ov.Tensor(np.ascontiguousarray(weights)))


def module_of(name: str) -> str:
    """Friendly names look like `__module.model.encoder.layer.0.output.dense/aten::linear/MatMul`."""
    return name.partition("/")[0].removeprefix("__module.").removeprefix("model.")


def _products(model: openvino.Model) -> list[Any]:
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and not node.get_attributes()["transpose_a"] and _is_matrix(node, 1)
    ]


def _lookups(model: openvino.Model) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "Gather" and _is_matrix(node, 0)]


def _is_matrix(node: Any, port: int) -> bool:
    given = node.input_value(port)
    return (
        given.get_node().get_type_name() == "Constant"
        and given.get_element_type().get_type_name() == "f32"
        and len(given.get_shape()) == 2
        and "/" in node.get_friendly_name()
    )


def _matrix(node: Any) -> Matrix:
    weights = _constant(node, 1)
    if not node.get_attributes()["transpose_b"]:
        weights = np.ascontiguousarray(weights.T)
    name = node.get_friendly_name()
    return Matrix(name, module_of(name), _source(node), weights)


def _constant(node: Any, port: int) -> Weights:
    return np.array(node.input_value(port).get_node().data, np.float32)


def _source(node: Any) -> str:
    output = node.input_value(0)
    return f"{output.get_node().get_friendly_name()}:{output.get_index()}"


def _with_weights(node: Any, activations: Any, weights: Any) -> None:
    """The same product with weights [outputs, inputs]."""
    from openvino import opset13 as opset

    product = opset.matmul(activations, weights, transpose_a=False, transpose_b=True)
    product.set_friendly_name(node.get_friendly_name())
    product.output(0).get_tensor().set_names(node.output(0).get_tensor().get_names())
    node.output(0).replace(product.output(0))


def _decompressed(codes: Codes) -> Any:
    """Constants and what turns them into float32 weights [outputs, inputs]."""
    import openvino as ov
    from openvino import opset13 as opset

    outputs, groups, size = codes.levels.shape
    kinds = {2: ov.Type.u2, 4: ov.Type.u4, 8: ov.Type.i8}
    kind = kinds[codes.grid.bits]
    shape = (outputs, size) if groups == 1 else (outputs, groups, size)
    column = (*shape[:-1], 1)
    levels = codes.levels.reshape(shape)
    if codes.grid.symmetric:
        centred = (levels.astype(np.int16) - codes.grid.middle).astype(np.int8)
        values = opset.convert(opset.constant(centred, dtype=kind), "f16")
    else:
        zeros = opset.convert(opset.constant(codes.zero_points.reshape(column), dtype=kind), "f16")
        values = opset.subtract(opset.convert(opset.constant(levels, dtype=kind), "f16"), zeros)
    scales = opset.constant(codes.scales.reshape(column).astype(np.float16))
    weights = opset.multiply(values, scales)
    if groups > 1:
        weights = opset.reshape(weights, np.array([outputs, groups * size], np.int64), special_zero=False)
    return opset.convert(weights, "f32")


def _half(weights: Weights) -> Any:
    from openvino import opset13 as opset

    return opset.convert(opset.constant(weights.astype(np.float16)), "f32")


def _divided(activations: Any, divisors: Weights) -> Any:
    from openvino import opset13 as opset

    return opset.multiply(activations, opset.constant((1.0 / divisors).astype(np.float32))).output(0)
