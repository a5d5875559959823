"""Sliding-window attention of a checkpoint's config is still there in the engine: what is out of reach has no say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import TransientError
from enginewright_builder.processes import Children
from enginewright_builder.resources import MemoryWatch
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.client import Toolchains
from enginewright_builder.toolchain.tasks import ExportTask
from enginewright_serving.triton.openvino_generation import OpenVinoGenerationRunner
from enginewright_serving.triton.sampling import Sampling
from tests.builder.tiny_llama import VOCABULARY, write_tiny_llama

pytestmark = pytest.mark.timeout(600)

WINDOW, TOKENS = 40, 48
"""Half of the window is more than the tokens that an export is traced with: it must not be lost as too wide there."""
REACH = WINDOW // 2


def checkpoint(folder: Path) -> Path:
    """A layer without a window, whose attention is multiplied by zero, and one with."""
    config = transformers.ModernBertConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        local_attention=WINDOW,
        layer_types=["full_attention", "sliding_attention"],
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )
    torch.manual_seed(0)
    model = transformers.ModernBertModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
        model.layers[0].attn.Wo.weight.zero_()
    model.save_pretrained(folder)
    return folder


def description(backend: str) -> EngineDescription:
    """Its answer is the first token's state."""
    return EngineDescription.model_validate(
        {
            "task": "Embedding",
            "backend": backend,
            "entry": {"OpenVINO": "openvino.xml", "ONNXRuntime": "model.onnx"}[backend],
            "inputs": ["input_ids", "attention_mask"],
            "output": "embedding",
            "outputDimension": 32,
            "pooling": "Cls",
            "normalize": False,
            "limits": {"maxBatchSize": 4, "maxInputTokens": 64},
            "runtimePackage": "x",
            "runtimeVersion": "x",
        }
    )


def first_states(folder: Path, backend: str, rows: list[Any]) -> list[Any]:
    described = description(backend)
    compiler = backend_of(described.backend)
    graph, engine = folder / "graph", folder / "engine"
    graph.mkdir()
    engine.mkdir()
    compiler.export(folder, described, graph)
    compiler.compile(graph, described, engine)
    feeds = [{"input_ids": row[None], "attention_mask": np.ones_like(row[None])} for row in rows]
    return list(compiler.answers(engine, described, feeds, 2))


@pytest.mark.parametrize("backend", ["OpenVINO", "ONNXRuntime"])
def test_tokens_out_of_the_windows_reach_have_no_influence(tmp_path: Path, backend: str) -> None:
    rows = [np.arange(TOKENS) % 90 + 5 for _ in range(3)]
    rows[1][REACH + 1 :] = 50  # all that no window reaches
    rows[2][REACH] = 50  # the last that one does
    plain, far, near = first_states(checkpoint(tmp_path), backend, rows)
    assert np.abs(far - plain).max() < 1e-6
    assert np.abs(near - plain).max() > 1e-3


DECODER_WINDOW = 16
"""A token sees itself and so many less one before it."""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, OpenVinoGenerationRunner]:
    """A Mistral of one layer, in PyTorch and as the server loads its engine."""
    root = tmp_path_factory.mktemp("decoder")
    folder = write_tiny_llama(root / "checkpoint", ["abcdefghij klmnopqrstuvwxyz"])
    config = transformers.MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        sliding_window=DECODER_WINDOW,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=1.0 if "embed" in name else 0.3)
    model.save_pretrained(folder)
    described = decoder_description()
    (root / "engine").mkdir()
    export(folder, described, root)
    return model, OpenVinoGenerationRunner(root / "engine" / described.entry, described, 2)


def decoder_description() -> EngineDescription:
    """Short prompts and answers, with a cache that rounds nothing."""
    return EngineDescription.model_validate(
        {
            "task": "TextGeneration",
            "backend": "OpenVINO",
            "entry": "openvino_model.xml",
            "inputs": ["input_ids", "attention_mask", "position_ids"],
            "output": "logits",
            "outputDimension": VOCABULARY,
            "limits": {"maxBatchSize": 2, "maxInputTokens": 96, "maxOutputTokens": 16},
            "generation": {"maxContextTokens": 112, "eosTokenIds": [2], "kvCachePrecision": "f32"},
            "runtimePackage": "x",
            "runtimeVersion": "x",
        }
    )


def export(folder: Path, described: EngineDescription, root: Path) -> None:
    """By the exporter's own environment."""
    children = Children()
    with (root / "log").open("wb") as log, MemoryWatch(os.getpid()) as memory:
        try:
            toolchain = Toolchains(children, {**os.environ, "OMP_NUM_THREADS": "2"}, memory, log, root).of("optimum")
            toolchain.perform(ExportTask(checkpoint=folder, description=described, into=root / "engine"))
        except TransientError as error:
            pytest.skip(f"toolchain optimum cannot be installed here: {error.message}")
        finally:
            children.close()


def test_a_decoder_reads_its_window_and_no_further(decoder: tuple[Any, OpenVinoGenerationRunner]) -> None:
    model, runner = decoder
    prompt = [(7 * place) % 200 + 5 for place in range(TOKENS)]
    reached = TOKENS - 1 - DECODER_WINDOW  # the first of those that the prediction of the last token sees
    far, near = list(prompt), list(prompt)
    far[:reached] = [203] * reached
    near[reached] = 203
    plain, changed_far, changed_near = (runner.score(ids)[-1] for ids in (prompt, far, near))
    assert changed_far == pytest.approx(plain, abs=1e-6)
    assert abs(changed_near - plain) > 1e-4
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -2]
    assert plain == pytest.approx(float(torch.log_softmax(logits, 0)[prompt[-1]]), abs=1e-4)


def test_a_decoder_keeps_its_window_while_it_generates(decoder: tuple[Any, OpenVinoGenerationRunner]) -> None:
    model, runner = decoder
    prompt = [(7 * place) % 200 + 5 for place in range(TOKENS)]
    far = [203] * (TOKENS - DECODER_WINDOW) + prompt[-DECODER_WINDOW:]
    found, same = generated(runner, prompt), generated(runner, far)
    assert same == found
    with torch.no_grad():
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, TOKENS:]
    assert found == expected.tolist()


def generated(runner: OpenVinoGenerationRunner, prompt: list[int]) -> list[int]:
    runner.add(0, prompt, Sampling(max_tokens=12))
    tokens: list[int] = []
    while runner.busy():
        tokens += [token for news in runner.step() for token in news.token_ids]
    return tokens
