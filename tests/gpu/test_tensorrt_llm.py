"""Text generation on a GPU: checkpoint → ModelOpt → LLM API or trtllm-build → logits close to eager PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enginewright_api.engine_description import EngineDescription
from enginewright_api.nvidia import kernel_of, refusal
from enginewright_api.optimization import Quantization
from enginewright_api.recipe import AcceleratorFacts
from enginewright_api.serving_spec import Batching
from enginewright_builder.datasets.news import calibration_rows
from enginewright_builder.tensorrt_llm.inflight_repository import MODELS, TEMPLATES, fill, placeholder_values
from enginewright_builder.toolchain.inputs import Feed, feeds
from enginewright_builder.toolchain.tensorrt_llm_backend import TensorRTLLMBackend
from enginewright_serving.node import Gpu
from tests.builder.tiny_llama import llm_description, write_tiny_llama

pytestmark = pytest.mark.timeout(1800)
TEXTS = [row.text for row in calibration_rows()[:8]]
FORMATS: list[tuple[str, dict[str, Any], float]] = [
    ("none", {}, 0.999),
    ("fp8", {"format": "FP8", "method": "MinMax", "kvCacheFormat": "FP8"}, 0.98),
    ("int4-awq", {"format": "INT4", "method": "AWQ"}, 0.9),
    ("int4-minmax", {"format": "INT4", "method": "MinMax"}, 0.9),
    ("int8-smoothquant", {"format": "INT8", "method": "SmoothQuant"}, 0.98),
    ("nvfp4", {"format": "NVFP4", "method": "MinMax"}, 0.9),
]
"""Name, settings, cosine to the unquantised model's logits that must be kept."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source checkpoint."""
    return write_tiny_llama(tmp_path_factory.mktemp("llama"), TEXTS)


def built(llama: Path, folder: Path, flavor: str, settings: dict[str, Any], gpu: Gpu) -> tuple[Path, EngineDescription]:
    description = EngineDescription.model_validate(llm_description(flavor))
    quantization = Quantization.model_validate({"format": "None", **settings})
    kernel = kernel_of(quantization.format, quantization.method)
    assert kernel is not None
    if flavor not in [one.value for one in kernel.flavors]:
        pytest.skip(f"{quantization.format.value} {quantization.method.value} is not for flavour {flavor}")
    facts = AcceleratorFacts(accelerator_class=gpu.name, vendor="nvidia", compute_capability=gpu.compute_capability)
    sentence = refusal(f"format {quantization.format.value}", kernel.architectures, facts)
    if sentence is not None:
        pytest.skip(sentence)
    backend = TensorRTLLMBackend()
    graph, quantized, engine = (folder / name for name in ("graph", "quantized", "engine"))
    for one in (graph, quantized, engine):
        one.mkdir()
    backend.export(llama, description, graph)
    backend.quantize(graph, description, quantization, rows(llama, description), quantized)
    backend.compile(quantized, description, engine)
    return engine, description


def rows(llama: Path, description: EngineDescription) -> list[Feed]:
    return list(feeds(TEXTS, llama, description, max_tokens=48))


def expected(llama: Path, feed: Feed) -> Any:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        return model(torch.from_numpy(feed["input_ids"])).logits[0, -1].float().numpy()


CASES = pytest.mark.parametrize(("settings", "kept"), [row[1:] for row in FORMATS], ids=[row[0] for row in FORMATS])


@CASES
@pytest.mark.usefixtures("tensorrt_llm")
def test_llm_api(gpu: Gpu, llama: Path, tmp_path: Path, settings: dict[str, Any], kept: float) -> None:
    check(llama, tmp_path, "PyTorch", settings, kept=kept, gpu=gpu)


@CASES
@pytest.mark.usefixtures("trtllm_build")
def test_engine(gpu: Gpu, llama: Path, tmp_path: Path, settings: dict[str, Any], kept: float) -> None:
    check(llama, tmp_path, "Engine", settings, kept=kept, gpu=gpu)


def check(llama: Path, folder: Path, flavor: str, settings: dict[str, Any], *, kept: float, gpu: Gpu) -> None:
    engine, description = built(llama, folder, flavor, settings, gpu)
    feed = rows(llama, description)[0]
    (logits,) = TensorRTLLMBackend().answers(engine, description, [feed], 1)
    wanted = expected(llama, feed)
    assert logits.shape == (1, description.output_dimension)
    assert np.isfinite(logits).all()
    cosine = float(logits[0] @ wanted / np.linalg.norm(logits[0]) / np.linalg.norm(wanted))
    assert cosine > kept


def test_the_image_templates_hold_no_placeholder_that_nobody_fills() -> None:
    """Needs the image, not its GPU."""
    folder = Path(TEMPLATES)
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; run in NVIDIA's Triton image for TensorRT-LLM")
    description = EngineDescription.model_validate(llm_description("Engine"))
    values = placeholder_values(engine="/e", tokenizer="/t", limits=description.limits, batching=Batching())
    for model in MODELS:
        text = (folder / model / "config.pbtxt").read_text()
        assert "${" not in fill(text, values, where=model)
