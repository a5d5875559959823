"""An encoder as plain ONNX: what every backend that reads ONNX starts from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from enginewright_api.engine_description import HIDDEN_STATES, TOKEN_SCORES, EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_builder.toolchain.graph import example_inputs

if TYPE_CHECKING:
    import torch

_OPSET = 17


def write_onnx(encoder: torch.nn.Module, description: EngineDescription, target: Path) -> None:
    """Float32, dynamic batch and tokens, standard operators. Raises DeterministicError UnsupportedOperator."""
    import torch

    names = list(description.inputs)
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    by_token = description.output in (HIDDEN_STATES, TOKEN_SCORES)
    axes[description.output] = {0: "batch", 1: "tokens"} if by_token else {0: "batch"}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The tracing exporter: node names keep the module path (needed for `exclude`), and the newer one writes
            # an invalid model for an output that is called `embedding`.
            torch.onnx.export(
                encoder,
                tuple(example_inputs(description).values()),
                str(target),
                input_names=names,
                output_names=[description.output],
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise DeterministicError("UnsupportedOperator", f"the model cannot be exported to ONNX: {first}") from error
