"""Sliding-window attention of a checkpoint's config is still there in the engine: what is out of reach has no say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from enginewright_api.engine_description import EngineDescription
from enginewright_builder.toolchain.backends import backend_of

WINDOW, TOKENS = 40, 48
"""Half of the window is more than the tokens that an export is traced with: it must not be lost as too wide there."""
REACH = WINDOW // 2


def checkpoint(folder: Path, *, local: bool) -> Path:
    """One layer with a window and one without, of which one attends: the other's attention is multiplied by zero."""
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
        model.layers[0 if local else 1].attn.Wo.weight.zero_()
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
    return [compiler.run(engine, described, feed, 2) for feed in feeds]


@pytest.mark.parametrize("backend", ["OpenVINO", "ONNXRuntime"])
@pytest.mark.parametrize("local", [True, False], ids=["sliding", "full"])
def test_tokens_out_of_the_windows_reach_have_no_influence(tmp_path: Path, backend: str, local: bool) -> None:
    rows = [np.arange(TOKENS) % 90 + 5 for _ in range(3)]
    rows[1][REACH + 1 :] = 50  # all that no window reaches
    rows[2][REACH] = 50  # the last that one does
    plain, far, near = first_states(checkpoint(tmp_path, local=local), backend, rows)
    assert np.abs(near - plain).max() > 1e-6
    assert bool(np.abs(far - plain).max() < 1e-6) is local
