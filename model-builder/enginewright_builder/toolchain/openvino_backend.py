"""OpenVINO: torch → IR directly (attention stays one fused operation), NNCF for INT8, compression for FP16."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginewright_api.engine_description import HIDDEN_STATES, EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format, Granularity, Quantization, QuantizationMethod
from enginewright_api.weight_support import weights_only
from enginewright_builder.toolchain.conversion import reason
from enginewright_builder.toolchain.graph import example_inputs, load_encoder
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.openvino_bf16 import arrange_for_bf16
from enginewright_builder.toolchain.openvino_names import canonical_names
from enginewright_builder.toolchain.openvino_sensitivity import sensitivity
from enginewright_builder.toolchain.openvino_weights import OpenVINOWeights, module_of, store, tables
from enginewright_builder.toolchain.scopes import excluded_nodes
from enginewright_builder.toolchain.weight_only import Grid, compress
from enginewright_builder.toolchain.weight_only.grid import round_to_nearest

if TYPE_CHECKING:
    import openvino

GRAPH = "openvino.xml"
ENTRY = "openvino.xml"
PACKAGE = "openvino"


class OpenVINOBackend:
    """Engines for CPU nodes."""

    graph = GRAPH
    entry = ENTRY
    package = PACKAGE

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> None:
        """IR in float32 with dynamic batch and tokens."""
        import openvino as ov

        encoder = load_encoder(checkpoint, description)
        try:
            model = ov.convert_model(
                encoder,
                example_input=tuple(example_inputs(description).values()),
                input=[_input(name, description) for name in description.inputs],
            )
        except (ov.frontend.OpConversionFailure, RuntimeError) as error:
            raise DeterministicError(
                "UnsupportedOperator", f"OpenVINO cannot convert the model: {reason(error)}"
            ) from error
        for port, name in zip(model.inputs, description.inputs, strict=True):
            port.get_tensor().set_names({name})
        model.outputs[0].get_tensor().set_names({description.output})
        _save(model, into / GRAPH)

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """INT8 weights and activations, or weights alone in few bits or FP16. Returns what is worth telling."""
        import openvino as ov

        if weights_only(quantization):
            return compress(OpenVINOWeights(graph / GRAPH), quantization, calibration, into / GRAPH)
        model = ov.Core().read_model(graph / GRAPH)
        if quantization.format is Format.FP16:
            ov.save_model(canonical_names(model), into / GRAPH, compress_to_fp16=True)
            return {"excluded": []}
        if quantization.format is not Format.INT8:
            _save(model, into / GRAPH)
            return {"excluded": []}
        if quantization.method is QuantizationMethod.QAT:
            _store_trained(model, into / GRAPH)
            return {"sensitivity": sensitivity(ov.Core().read_model(into / GRAPH), calibration)}
        excluded = excluded_nodes(_modules(model), quantization.exclude)
        model = _post_training(model, quantization, list(calibration), excluded)
        _save(model, into / GRAPH)
        return {"excluded": excluded, "sensitivity": sensitivity(model, calibration)}

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """The IR is what the plugin loads; it compiles for the CPU it finds when it loads."""
        import openvino as ov

        if description.precision_hint == "bf16":
            model = ov.Core().read_model(graph / GRAPH)
            arrange_for_bf16(model, description.pooling)
            _save(model, into / GRAPH)
            return
        for name in (GRAPH, "openvino.bin"):
            (into / name).hardlink_to(graph / name)

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Outputs for several inputs of an engine, or of a graph."""
        import openvino as ov

        compiled = ov.Core().compile_model(
            engine / ENTRY,
            "CPU",
            {"INFERENCE_PRECISION_HINT": description.precision_hint, "INFERENCE_NUM_THREADS": threads},
        )
        for feed in feeds:
            yield compiled(feed)[description.output].copy()


def _input(name: str, description: EngineDescription) -> tuple[openvino.PartialShape, openvino.Type]:
    import openvino as ov

    if name == HIDDEN_STATES and description.early_exit is not None:
        return ov.PartialShape([-1, -1, description.early_exit.width]), ov.Type.f32
    return ov.PartialShape([-1, -1]), ov.Type.i64


def _post_training(
    model: openvino.Model, quantization: Quantization, calibration: list[Feed], excluded: list[str]
) -> openvino.Model:
    import nncf
    import numpy as np
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

    random.seed(0)
    np.random.seed(0)  # NNCF's samplers use the global generator
    ranges = {
        QuantizationMethod.MIN_MAX: RangeEstimatorParametersSet.MINMAX,
        QuantizationMethod.PERCENTILE: RangeEstimatorParametersSet.MEAN_QUANTILE,
        QuantizationMethod.HISTOGRAM: RangeEstimatorParametersSet.HISTOGRAM,
        # NNCF's own choice for transformers.
        QuantizationMethod.SMOOTH_QUANT: RangeEstimatorParameters(),
    }
    smooth = quantization.method is QuantizationMethod.SMOOTH_QUANT
    per_channel = quantization.granularity is Granularity.PER_CHANNEL
    parameters = AdvancedQuantizationParameters(
        activations_range_estimator_params=ranges[quantization.method],
        weights_quantization_params=QuantizationParameters(per_channel=per_channel),
        smooth_quant_alphas=AdvancedSmoothQuantParameters() if smooth else AdvancedSmoothQuantParameters(matmul=-1),
    )
    return nncf.quantize(
        model,
        nncf.Dataset(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=excluded) if excluded else None,
        advanced_parameters=parameters,
    )


def _store_trained(model: openvino.Model, into: Path) -> None:
    """Weights that the graph quantises, stored as what they are quantised to, and embedding tables in 8 bits by row.

    NNCF ends with the same: with a table in float32 the engine of a small encoder would be three times as large.
    """
    from openvino._offline_transformations import compress_quantize_weights_transformation

    compress_quantize_weights_transformation(model)
    packed = {table.name: round_to_nearest(table.weights, Grid(8)) for table in tables(model)}
    store(model, into, packed, frozenset(), {})


def _modules(model: openvino.Model) -> dict[str, str]:
    return {
        node.get_friendly_name(): module_of(node.get_friendly_name())
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("MatMul", "ScaledDotProductAttention") and "/" in node.get_friendly_name()
    }


def _save(model: openvino.Model, path: Path) -> None:
    import openvino as ov

    ov.save_model(canonical_names(model), path, compress_to_fp16=False)
