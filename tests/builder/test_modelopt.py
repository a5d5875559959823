"""Real quantisation and export by ModelOpt, in its own environment, on a small Llama that transformers 5 wrote.

What is checked is the bytes: weights unpacked again must be close to the ones that went in.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.optimization import Quantization
from enginewright_builder.datasets.news import calibration_rows
from enginewright_builder.processes import Children
from enginewright_builder.resources import MemoryWatch
from enginewright_builder.toolchain.client import Toolchain, Toolchains
from enginewright_builder.toolchain.tasks import CompileTask, ExportTask, QuantizeTask
from tests.builder.tiny_llama import ROTARY_BASE, llm_description, write_tiny_llama

pytestmark = pytest.mark.timeout(600)
GROUP = 128
TEXTS = [row.text for row in calibration_rows()[:4]]


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolchain]:
    """The process of toolchain `modelopt`; its environment is made on first use."""
    folder = tmp_path_factory.mktemp("modelopt")
    children = Children()
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "TRANSFORMERS_OFFLINE": "1"}
    with (folder / "log").open("wb") as log, MemoryWatch(os.getpid()) as memory:
        try:
            yield Toolchains(children, environment, memory, log, folder).of("modelopt")
        except TransientError as error:
            pytest.skip(f"toolchain modelopt cannot be installed here: {error.message}")
        finally:
            children.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source checkpoint."""
    return write_tiny_llama(tmp_path_factory.mktemp("llama"), TEXTS)


def description(flavor: str = "PyTorch", **parallelism: int) -> EngineDescription:
    return EngineDescription.model_validate(llm_description(flavor, **parallelism))


@pytest.fixture(scope="module")
def graph(toolchain: Toolchain, llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as transformers 4 reads it."""
    folder = tmp_path_factory.mktemp("graph")
    toolchain.perform(ExportTask(checkpoint=llama, description=description(), into=folder))
    return folder


def quantized(
    toolchain: Toolchain,
    graph: Path,
    into: Path,
    settings: dict[str, Any],
    wanted: EngineDescription | None = None,
    *,
    rows: int = len(TEXTS),
) -> tuple[Path, dict[str, object]]:
    told = toolchain.perform(
        QuantizeTask(
            graph=graph,
            tokenizer=graph / "checkpoint",
            description=wanted or description(),
            quantization=Quantization.model_validate({"calibration": {"maxTokens": 32}, **settings}),
            texts=TEXTS[:rows],
            into=into,
        )
    )
    return into / "checkpoint", told


def settings_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "hf_quant_config.json").read_text())["quantization"]
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0))


DOWN = "model.layers.1.mlp.down_proj"


def test_a_config_of_transformers_5_is_rewritten_for_4(graph: Path, llama: Path) -> None:
    """4.x ignores rope_parameters and would run with a rotary base of 10000."""
    written = json.loads((llama / "config.json").read_text())
    assert "rope_theta" not in written, "transformers 5 does not write it; else this test shows nothing"
    config = json.loads((graph / "checkpoint" / "config.json").read_text())
    assert config["rope_theta"] == ROTARY_BASE
    tokenizer = json.loads((graph / "checkpoint" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_fp8_with_fp8_keys_and_values(toolchain: Toolchain, graph: Path, llama: Path, tmp_path: Path) -> None:
    settings = {"format": "FP8", "method": "MinMax", "kvCacheFormat": "FP8", "exclude": ["model.layers.0.mlp"]}
    folder, told = quantized(toolchain, graph, tmp_path, settings)
    found, original = weights(folder), weights(llama)
    assert (told["quantAlgo"], told["kvCacheQuantAlgo"]) == ("FP8", "FP8")
    assert found[f"{DOWN}.weight"].dtype is torch.float8_e4m3fn
    unpacked = found[f"{DOWN}.weight"].float() * found[f"{DOWN}.weight_scale"]
    assert cosine(unpacked, original[f"{DOWN}.weight"]) > 0.999
    assert found[f"{DOWN}.input_scale"] > 0, "measured on the rows"
    assert found["model.layers.0.self_attn.k_proj.k_scale"] > 0
    kept = "model.layers.0.mlp.down_proj"
    assert torch.equal(found[f"{kept}.weight"], original[f"{kept}.weight"])
    assert sorted(told["excluded"]) == [  # type: ignore[call-overload]
        f"model.layers.0.mlp.{name}" for name in ("down_proj", "gate_proj", "up_proj")
    ]
    assert any("model.layers.0.mlp" in name for name in settings_of(folder)["exclude_modules"])
    assert json.loads((folder / "config.json").read_text())["rope_theta"] == ROTARY_BASE
    assert (folder / "tokenizer.json").is_file()


def unpack_int4(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """ModelOpt's layout: two output rows in a byte, low nibble first; a scale for each row and group of inputs."""
    low, high = packed & 0x0F, packed >> 4
    rows = torch.stack([low, high], dim=1).reshape(-1, packed.shape[1]).to(torch.int16)
    signed = torch.where(rows > 7, rows - 16, rows).float()
    return signed * scale.repeat_interleave(signed.shape[1] // scale.shape[1], dim=1)


@pytest.mark.parametrize("method", ["MinMax", "AWQ"])
def test_int4_in_groups(toolchain: Toolchain, graph: Path, llama: Path, tmp_path: Path, method: str) -> None:
    # AWQ tries eleven strengths of smoothing on every row.
    settings = {"format": "INT4", "method": method}
    folder, told = quantized(toolchain, graph, tmp_path, settings, rows=1 if method == "AWQ" else 0)
    found, original = weights(folder), weights(llama)
    assert told["quantAlgo"] == "W4A16_AWQ"
    assert settings_of(folder)["group_size"] == GROUP
    assert found[f"{DOWN}.weight"].dtype is torch.uint8
    assert found[f"{DOWN}.weight"].numel() * 2 == original[f"{DOWN}.weight"].numel()
    assert found[f"{DOWN}.weight_scale"].shape == (256, 512 // GROUP)
    # TensorRT-LLM reads this tensor of every layer that nothing is fused with, whoever found the scales.
    activations = found[f"{DOWN}.pre_quant_scale"].float()
    unpacked = unpack_int4(found[f"{DOWN}.weight"], found[f"{DOWN}.weight_scale"]) * activations
    assert cosine(unpacked, original[f"{DOWN}.weight"]) > 0.98
    assert bool((activations == 1).all()) is (method == "MinMax")


def test_nvfp4_has_the_scales_that_its_kernel_reads(toolchain: Toolchain, graph: Path, tmp_path: Path) -> None:
    folder, told = quantized(toolchain, graph, tmp_path, {"format": "NVFP4", "method": "MinMax"})
    found = weights(folder)
    assert told["quantAlgo"] == "NVFP4"
    assert found[f"{DOWN}.weight"].shape == (256, 512 // 2)
    assert found[f"{DOWN}.weight_scale"].shape == (256, 512 // 16)
    assert found[f"{DOWN}.input_scale"] > 0


def test_an_engine_checkpoint_is_sharded(toolchain: Toolchain, graph: Path, llama: Path, tmp_path: Path) -> None:
    wanted = description("Engine", tensor=2, pipeline=2)
    folder, told = quantized(
        toolchain, graph, tmp_path, {"format": "INT8", "method": "SmoothQuant", "kvCacheFormat": "INT8"}, wanted
    )
    config = json.loads((folder / "config.json").read_text())
    assert sorted(path.name for path in folder.glob("*.safetensors")) == [
        f"rank{rank}.safetensors" for rank in range(4)
    ]
    assert config["mapping"] == {
        "world_size": 4, "tp_size": 2, "pp_size": 2, "cp_size": 1, "moe_tp_size": 2, "moe_ep_size": 1,
    }  # fmt: skip
    assert config["rotary_base"] == ROTARY_BASE
    assert (told["quantAlgo"], told["kvCacheQuantAlgo"]) == ("W8A8_SQ_PER_CHANNEL", "INT8")
    first, second, last = (load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1, 3))
    name = "transformer.layers.0.mlp.proj"
    assert first[f"{name}.weight"].dtype is torch.int8
    # Row parallel: both halves of the inputs, side by side, are the layer again.
    whole = torch.cat([first[f"{name}.weight"], second[f"{name}.weight"]], dim=1).float()
    smooth = torch.cat([first[f"{name}.prequant_scaling_factor"], second[f"{name}.prequant_scaling_factor"]]).float()
    unpacked = whole * first[f"{name}.weights_scaling_factor"].reshape(-1, 1) * smooth
    assert cosine(unpacked, weights(llama)["model.layers.0.mlp.down_proj.weight"]) > 0.99
    assert "transformer.vocab_embedding.weight" in first
    assert "transformer.vocab_embedding.weight" not in last, "the last rank has the head instead"
    assert "lm_head.weight" in last


def test_without_the_tools_the_image_is_named_and_the_checkpoint_is_ready(
    toolchain: Toolchain, graph: Path, tmp_path: Path
) -> None:
    for number, (flavor, tool) in enumerate((("PyTorch", "tensorrt_llm"), ("Engine", "trtllm-build"))):
        engine = tmp_path / str(number) / "engine"
        engine.mkdir(parents=True)
        task = CompileTask(
            graph=graph, tokenizer=graph / "checkpoint", description=description(flavor), probe=TEXTS[:1], into=engine
        )
        with pytest.raises(DeterministicError) as caught:
            toolchain.perform(task)
        assert caught.value.reason == "ToolchainMissing"
        assert tool in caught.value.message
        assert "tritonserver:26.07-trtllm-python-py3" in caught.value.message
    # Nothing was quantised, yet an engine is built from a checkpoint of its own, which the toolchain wrote.
    config = json.loads((tmp_path / "1" / "engine-checkpoint" / "config.json").read_text())
    assert config["quantization"]["quant_algo"] is None
    assert config["rotary_base"] == ROTARY_BASE


def test_fp16_is_what_an_engine_computes_in(toolchain: Toolchain, graph: Path, llama: Path, tmp_path: Path) -> None:
    """The source is in bfloat16."""
    wanted, engine = description("Engine"), tmp_path / "build" / "engine"
    engine.mkdir(parents=True)
    (tmp_path / "half").mkdir()
    folder, _ = quantized(toolchain, graph, tmp_path / "half", {"format": "FP16"}, wanted, rows=0)
    assert json.loads((graph / "checkpoint" / "config.json").read_text())["dtype"] == "bfloat16", "left as it was"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    task = CompileTask(graph=folder.parent, tokenizer=folder, description=wanted, probe=TEXTS[:1], into=engine)
    with pytest.raises(DeterministicError, match="trtllm-build"):
        toolchain.perform(task)
    made = tmp_path / "build" / "engine-checkpoint"
    assert json.loads((made / "config.json").read_text())["dtype"] == "float16"
    name = "transformer.layers.0.mlp.proj.weight"
    assert load_file(made / "rank0.safetensors")[name].dtype is torch.float16


@pytest.mark.parametrize(
    ("settings", "parallelism", "reason", "words"),
    [
        (
            {"format": "INT4", "method": "MinMax"},
            {"tensor": 4},
            "GroupSizeMismatch",
            "of model.layers.0.self_attn.o_proj",
        ),
        (
            {"format": "FP8", "method": "MinMax", "exclude": ["model.layers.0.self_attn.q_proj"]},
            {},
            "FormatNotSupported",
            "is fused with model.layers.0.self_attn.k_proj",
        ),
        ({"format": "FP8", "method": "MinMax", "exclude": ["*.dense"]}, {}, "PatternMatchesNothing", "*.dense"),
    ],
)
def test_what_the_kernels_cannot_run_is_refused(  # noqa: PLR0917 - fixtures and a row of the table
    toolchain: Toolchain,
    graph: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    parallelism: dict[str, int],
    reason: str,
    words: str,
) -> None:
    with pytest.raises(DeterministicError) as caught:
        quantized(toolchain, graph, tmp_path, settings, description(**parallelism))
    assert caught.value.reason == reason
    assert words in caught.value.message


def test_shapes_that_config_json_cannot_say_are_refused(toolchain: Toolchain, llama: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    subprocess.run(["cp", "-r", str(llama), str(pruned)], check=True)
    (pruned / "structure.json").write_text("{}")
    with pytest.raises(DeterministicError, match=r"structure\.json"):
        toolchain.perform(ExportTask(checkpoint=pruned, description=description(), into=tmp_path))
