"""How much each place that reads 8 bits costs, measured on the quantised graph itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enginewright_api.optimization import Format
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.openvino_bf16 import quantizer_before
from enginewright_builder.toolchain.openvino_weights import module_of

if TYPE_CHECKING:
    import openvino

_PROBES = 4


def sensitivity(model: openvino.Model, calibration: Sequence[Feed]) -> list[dict[str, object]]:
    """Module, format and error of each quantiser of activations; the model is used up.

    The error is the mean over rows of ‖y − y₀‖² / ‖y₀‖², y₀ the answer with weights in 8 bits and no activation. Every
    quantiser becomes x + g·(q(x) − x), g an input: the graph is compiled once, whatever is switched on. Where several
    modules read the same activations, they are named together.
    """
    import openvino as ov

    modules = _gates(model)
    rows = calibration[:_PROBES]
    if not modules or not rows:
        return []
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    off = {f"gate{number}": np.float32(0) for number in range(len(modules))}

    def answers(**on: np.float32) -> list[NDArray[np.float64]]:
        return [compiled({**feed, **off, **on})[0].astype(np.float64) for feed in rows]

    plain = answers()
    found = []
    for number, names in enumerate(modules):
        changed = answers(**{f"gate{number}": np.float32(1)})
        error = np.mean([((y - y0) ** 2).sum() / (y0**2).sum() for y, y0 in zip(changed, plain, strict=True)])
        found.append({"module": ", ".join(names), "format": Format.INT8.value, "error": float(f"{error:.6g}")})
    return found


def _gates(model: openvino.Model) -> list[list[str]]:
    """Put a switch at the quantisers of each tensor that products read; the modules that read it, in their order."""
    from openvino import opset13 as ops

    readers: dict[str, list[str]] = {}
    quantizers: dict[str, dict[str, Any]] = {}
    for node in model.get_ordered_ops():
        quantizer = quantizer_before(node.input_value(0)) if node.get_type_name() == "MatMul" else None
        if quantizer is not None:
            plain = quantizer.input_value(0)
            tensor = f"{plain.get_node().get_friendly_name()}:{plain.get_index()}"
            readers.setdefault(tensor, []).append(module_of(node.get_friendly_name()))
            quantizers.setdefault(tensor, {})[quantizer.get_friendly_name()] = quantizer
    for number, found in enumerate(quantizers.values()):
        gate = ops.parameter([], np.float32, name=f"gate{number}")
        gate.output(0).get_tensor().set_names({f"gate{number}"})
        model.add_parameters([gate])
        for quantizer in found.values():
            after = list(quantizer.output(0).get_target_inputs())
            plain = quantizer.input_value(0)
            switched = ops.add(plain, ops.multiply(gate, ops.subtract(quantizer, plain)))
            for reader in after:
                reader.replace_source_output(switched.output(0))
    return [_told(modules) for modules in readers.values()]


def _told(modules: list[str]) -> list[str]:
    """`layer.0.query`, `key`, `value`: what the first name says already is left out of the others."""
    parent = modules[0].rpartition(".")[0] + "."
    return [modules[0], *(name.removeprefix(parent) for name in modules[1:])]
