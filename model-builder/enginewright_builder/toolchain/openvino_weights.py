"""Weights of an OpenVINO graph: found, replaced for a moment, stored in few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.openvino_names import canonical_names
from enginewright_builder.toolchain.weight_only import Codes, Matrix, Moments
from enginewright_builder.toolchain.weight_only.graph import Accumulated, by_row
from enginewright_builder.toolchain.weight_only.grid import Weights

if TYPE_CHECKING:
    import openvino

_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
_PROBES = 16


class OpenVINOWeights:
    """A float32 IR of an encoder. Codes become the constants that the CPU plugin's compressed matrix products know:

    constant (u2, u4, i8) → convert → subtract zero point → multiply by scale → reshape (groups to rows).
    """

    fractional = False

    def __init__(self, graph: Path) -> None:
        self._path = graph
        self._swap: Swap | None = None

    def matrices(self) -> list[Matrix]:
        """Every product with a constant, in execution order."""
        return [matrix_of(node) for node in products(self._read())]

    def tables(self) -> list[Matrix]:
        """Embedding tables."""
        return tables(self._read())

    def moments(self, sources: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Moments]:
        """Of the named activations, row by row."""
        return moments_of(self._read(), sources, lambda request: _runs(request, feeds))

    def probes(self, calibration: Sequence[Feed]) -> Sequence[Feed]:
        """A few rows."""
        return calibration[:_PROBES]

    def answers(self, feeds: Sequence[Feed], replaced: Mapping[str, Weights]) -> NDArray[np.float32]:
        """One row a feed, or a token of it, with some matrices replaced."""
        if self._swap is None:
            model = self._read()
            self._swap = Swap(model, products(model))
        with self._swap.replaced(replaced) as request:
            return by_row([np.array(run.get_output_tensor(0).data) for run in _runs(request, feeds)])

    def store(
        self, into: Path, packed: Mapping[str, Codes], halved: frozenset[str], divisors: Mapping[str, Weights]
    ) -> None:
        """Write the IR."""
        store(self._read(), into, packed, halved, divisors)

    def _read(self) -> openvino.Model:
        import openvino as ov

        return ov.Core().read_model(self._path)


def moments_of(
    model: openvino.Model, sources: Sequence[str], runs: Callable[[Any], Iterator[Any]]
) -> dict[str, Moments]:
    """Of the named activations; `runs` takes an inference request and yields it after each run."""
    import openvino as ov

    outputs = {_source(node): node.input_value(0) for node in products(model)}
    first = len(model.outputs)
    model.add_outputs([outputs[source] for source in sources])
    request = ov.Core().compile_model(model, "CPU", _EXACT).create_infer_request()
    sums = [Accumulated() for _ in sources]
    for run in runs(request):
        for index, total in enumerate(sums):
            total.add(run.get_output_tensor(first + index).data)
    return {source: total.moments() for source, total in zip(sources, sums, strict=True)}


def store(
    model: openvino.Model,
    into: Path,
    packed: Mapping[str, Codes],
    halved: frozenset[str],
    divisors: Mapping[str, Weights],
) -> None:
    """Write the IR with matrices and tables as codes or in float16, and activations (by source) divided."""
    import openvino as ov

    stored = _Stored(packed)
    for node in lookups(model):
        if node.get_friendly_name() in packed:
            node.input(0).replace_source_output(stored.weights(node, 0).output(0))
    divided: dict[str, Any] = {}
    for node in products(model):
        name, source = node.get_friendly_name(), _source(node)
        if name in packed:
            if source in divisors and source not in divided:
                divided[source] = _divided(node.input_value(0), divisors[source])
            _with_weights(node, divided.get(source, node.input_value(0)), stored.weights(node, 1))
        elif name in halved:
            _with_weights(node, node.input_value(0), _half(matrix_of(node).weights))
    ov.save_model(canonical_names(model), into, compress_to_fp16=False)


class Swap:
    """The graph with the matrices of some products as inputs: compiled once, whatever is tried."""

    def __init__(self, model: openvino.Model, nodes: Sequence[Any]) -> None:
        import openvino as ov
        from openvino import opset13 as opset

        self._weights: dict[str, NDArray[np.float32]] = {}
        self._turned: dict[str, bool] = {}
        parameters = []
        for node in nodes:
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

    @contextmanager
    def replaced(self, matrices: Mapping[str, Weights]) -> Iterator[Any]:
        """The inference request with some matrices, [outputs, inputs] by name, in place of the graph's."""
        for name, weights in matrices.items():
            self._set(name, weights.T if self._turned[name] else weights)
        try:
            yield self._request
        finally:
            for name in matrices:
                self._set(name, self._weights[name])

    def _set(self, name: str, weights: Weights) -> None:
        import openvino as ov

        self._request.set_tensor(name, ov.Tensor(np.ascontiguousarray(weights)))


def module_of(name: str) -> str:
    """Friendly names look like `__module.model.encoder.layer.0.output.dense/aten::linear/MatMul`."""
    return name.partition("/")[0].removeprefix("__module.").removeprefix("model.")


def products(model: openvino.Model) -> list[Any]:
    """Every product with a constant matrix, in execution order."""
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and not node.get_attributes()["transpose_a"] and _is_matrix(node, 1)
    ]


def lookups(model: openvino.Model) -> list[Any]:
    """Every look-up in a constant table, in execution order."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "Gather" and _is_matrix(node, 0)]


def _is_matrix(node: Any, port: int) -> bool:
    given = node.input_value(port)
    return (
        given.get_node().get_type_name() == "Constant"
        and given.get_element_type().get_type_name() == "f32"
        and len(given.get_shape()) == 2
        and "/" in node.get_friendly_name()
    )


def tables(model: openvino.Model) -> list[Matrix]:
    """Embedding tables, each read by one look-up."""
    return [
        Matrix(node.get_friendly_name(), module_of(node.get_friendly_name()), "", _constant(node, 0))
        for node in lookups(model)
    ]


def matrix_of(node: Any) -> Matrix:
    """What a product multiplies by."""
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


class _Stored:
    """Compressed constants: one where several nodes read one tensor, as tied tables and heads do."""

    def __init__(self, packed: Mapping[str, Codes]) -> None:
        self._packed = packed
        self._made: dict[str, list[tuple[Codes, Any]]] = {}

    def weights(self, node: Any, port: int) -> Any:
        """In place of a node's constant."""
        codes = self._packed[node.get_friendly_name()]
        made = self._made.setdefault(node.input_value(port).get_node().get_friendly_name(), [])
        for before, weights in made:
            if before.same(codes):
                return weights
        made.append((codes, _decompressed(codes)))
        return made[-1][1]


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
        zeros = _zero_points(codes, column, kind)
        values = opset.subtract(opset.convert(opset.constant(levels, dtype=kind), "f16"), zeros)
    scales = opset.constant(codes.scales.reshape(column).astype(np.float16))
    weights = opset.multiply(values, scales)
    if groups > 1:
        weights = opset.reshape(weights, np.array([outputs, groups * size], np.int64), special_zero=False)
    return opset.convert(weights, "f32")


def _zero_points(codes: Codes, column: tuple[int, ...], kind: openvino.Type) -> Any:
    from openvino import opset13 as opset

    if codes.grid.fractional:
        return opset.constant(codes.zero_points.reshape(column).astype(np.float16))
    return opset.convert(opset.constant(codes.zero_points.reshape(column), dtype=kind), "f16")


def _runs(request: Any, feeds: Sequence[Feed]) -> Iterator[Any]:
    for feed in feeds:
        request.infer(feed)
        yield request


def _half(weights: Weights) -> Any:
    from openvino import opset13 as opset

    return opset.convert(opset.constant(weights.astype(np.float16)), "f32")


def _divided(activations: Any, divisors: Weights) -> Any:
    from openvino import opset13 as opset

    return opset.multiply(activations, opset.constant((1.0 / divisors).astype(np.float32))).output(0)
