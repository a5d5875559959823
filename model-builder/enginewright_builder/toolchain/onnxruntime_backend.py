"""ONNX Runtime: torch → ONNX, fused; its own quantiser for INT8 (matrix products only), MatMulNBits for weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import EngineDescription
from enginewright_api.optimization import Format, Granularity, Quantization, QuantizationMethod
from enginewright_api.weight_support import weights_only
from enginewright_builder.toolchain.graph import example_inputs, load_encoder
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.onnx_graph import write_onnx
from enginewright_builder.toolchain.scopes import excluded_nodes
from enginewright_builder.toolchain.weight_only import compress

GRAPH = "model.onnx"
ENTRY = "model.onnx"
PACKAGE = "onnxruntime"
_QUANTIZED = ["MatMul"]
_UNKNOWN_IS_FLOAT = {"DefaultTensorType": 1}
"""TensorProto.FLOAT: what the quantisers take for outputs of fused operators, which ONNX's inference does not know."""


class ONNXRuntimeBackend:
    """Engines for any CPU."""

    graph = GRAPH
    entry = ENTRY
    package = PACKAGE

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> dict[str, object]:
        """ONNX in float32 with dynamic batch and tokens, attention and normalisation fused: `fused`, by operator."""
        from enginewright_builder.toolchain.onnxruntime_fusion import fuse

        encoder = load_encoder(checkpoint, description)
        # Spelt out, attention is a pattern that the optimiser knows; scaled_dot_product_attention is not.
        encoder.model.set_attn_implementation("eager")
        write_onnx(encoder, description, into / GRAPH)
        probe = {name: values.numpy() for name, values in example_inputs(description).items()}
        return {"fused": dict(fuse(into / GRAPH, head_size(encoder.model.config), probe))}

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """Matrix products in INT8, or their weights alone in few bits. Returns what is worth telling."""
        source, target = graph / GRAPH, into / GRAPH
        if weights_only(quantization):
            from enginewright_builder.toolchain.onnxruntime_weights import OnnxWeights

            return compress(OnnxWeights(source), quantization, calibration, target)
        if quantization.format is not Format.INT8:
            target.hardlink_to(source)
            return {"excluded": []}
        if quantization.method is QuantizationMethod.QAT:
            from enginewright_builder.toolchain.onnxruntime_packing import store_quantized

            return {"packedWeights": store_quantized(source, target)}
        excluded = excluded_nodes(module_names(source), quantization.exclude)
        if quantization.method is QuantizationMethod.DYNAMIC:
            _dynamic(source, target, quantization, excluded)
        else:
            _static(source, target, quantization, calibration, excluded)
        return {"excluded": excluded}

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """ONNX Runtime optimises for the CPU it finds when it loads: the graph is what ships."""
        (into / ENTRY).hardlink_to(graph / GRAPH)

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Outputs for several inputs of an engine, or of a graph."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(engine / ENTRY, options, providers=["CPUExecutionProvider"])
        for feed in feeds:
            yield session.run([description.output], feed)[0]


def head_size(config: Any) -> int | None:
    """Dimension of one attention head, from the checkpoint's configuration before heads were pruned."""
    given = getattr(config, "head_dim", None)
    if isinstance(given, int):
        return given
    hidden, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) else None


def _dynamic(source: Path, target: Path, quantization: Quantization, excluded: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=_QUANTIZED,
        per_channel=quantization.granularity is Granularity.PER_CHANNEL,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
        extra_options=_UNKNOWN_IS_FLOAT,
    )


def _static(
    source: Path, target: Path, quantization: Quantization, calibration: Sequence[Feed], excluded: list[str]
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    method = {
        QuantizationMethod.MIN_MAX: CalibrationMethod.MinMax,
        QuantizationMethod.ENTROPY: CalibrationMethod.Entropy,
        QuantizationMethod.PERCENTILE: CalibrationMethod.Percentile,
    }[quantization.method]
    with tempfile.TemporaryDirectory(prefix="calibration-", dir=target.parent) as folder:
        ranges, typed = Path(folder) / "ranges.json", Path(folder) / GRAPH
        state_types(source, typed)
        _measure_ranges(typed, method, calibration, ranges)
        quantize_static(
            typed,
            target,
            calibration_cache_path=ranges,
            calibrate_method=method,
            quant_format=QuantFormat.QDQ,
            # Quantising every operation ruins the embedding (cosine .28 was measured on MiniLM).
            op_types_to_quantize=_QUANTIZED,
            per_channel=quantization.granularity is Granularity.PER_CHANNEL,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_exclude=excluded,
            extra_options={
                "MatMulConstBOnly": True,
                # A product is accumulated in float32; 8 bits before its bias would only lose what it is.
                "OpTypesToExcludeOutputQuantization": _QUANTIZED,
                **_UNKNOWN_IS_FLOAT,
            },
        )


def state_types(source: Path, target: Path) -> None:
    """The graph with float as the type of what products read.

    ONNX's inference stops at fused operators, and the calibrator and the static quantiser pass over activations of
    unknown type: only 3 of MiniLM's 36 products would read 8 bits, the others float32.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(source)
    graph = model.graph
    known = {one.name for one in (*graph.value_info, *graph.input, *graph.output, *graph.initializer)}
    read = dict.fromkeys(node.input[0] for node in graph.node if node.op_type in _QUANTIZED)
    unknown = [name for name in read if name not in known]
    graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in unknown)
    onnx.save(model, target)


def _measure_ranges(source: Path, method: Any, calibration: Sequence[Feed], into: Path) -> None:
    """One row at a time: the library would hold every activation of all rows, and needs them of one length."""
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator
    from onnxruntime.quantization.calibrate import save_tensors_data

    class One(CalibrationDataReader):  # type: ignore[misc]  # the library asks for a subclass and is untyped
        """Gives one row, then nothing."""

        def __init__(self, feed: Feed) -> None:
            self._feed: Feed | None = feed

        def get_next(self) -> Feed | None:
            feed, self._feed = self._feed, None
            return feed

    augmented = str(into.with_name("augmented.onnx"))
    calibrator = create_calibrator(source, _QUANTIZED, augmented_model_path=augmented, calibrate_method=method)
    for feed in calibration:
        calibrator.collect_data(One(feed))
    save_tensors_data(calibrator.compute_data(), into)


def module_names(graph: Path) -> dict[str, str]:
    """Matrix products and the module each comes from: nodes are named `/model/encoder/layer.0/output/dense/MatMul`."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    return {
        node.name: node.name.strip("/").rpartition("/")[0].replace("/", ".").removeprefix("model.")
        for node in model.graph.node
        if node.op_type == "MatMul" and node.name.count("/") > 1
    }
