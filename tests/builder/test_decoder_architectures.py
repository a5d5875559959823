"""Decoders of many architectures: their OpenVINO engines score and generate as transformers does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from enginewright_serving.triton.openvino_generation import OpenVinoGenerationRunner
from tests.builder.test_sliding_window import decoder_description, export, generated
from tests.builder.tiny_llama import VOCABULARY, write_tiny_llama

pytestmark = pytest.mark.timeout(600)
SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
USUAL = SPECIAL | {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
GPT2 = SPECIAL | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
ALWAYS: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": GPT2,
    "Phi3ForCausalLM": USUAL,
    "Qwen3ForCausalLM": USUAL | {"head_dim": 16},
}
MORE: dict[str, dict[str, Any]] = {
    "BloomForCausalLM": SPECIAL | {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "CohereForCausalLM": USUAL,
    "FalconForCausalLM": USUAL,
    "Glm4ForCausalLM": USUAL | {"head_dim": 16},
    "GPTBigCodeForCausalLM": GPT2,
    "GPTNeoXForCausalLM": USUAL,
    "GraniteForCausalLM": USUAL,
    "LlamaForCausalLM": USUAL,
    "MistralForCausalLM": USUAL,
    "MixtralForCausalLM": USUAL | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Olmo2ForCausalLM": USUAL,
    "OlmoForCausalLM": USUAL,
    "OPTForCausalLM": USUAL | {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "Qwen2ForCausalLM": USUAL,
    "Qwen3MoeForCausalLM": USUAL
    | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "SmolLM3ForCausalLM": USUAL,
    "StableLmForCausalLM": USUAL,
    "Starcoder2ForCausalLM": USUAL,
}
ALL = "ENGINEWRIGHT_ALL_ARCHITECTURES"
PROMPT = [(7 * place) % 200 + 5 for place in range(48)]


def model(architecture: str) -> Any:
    """Random weights, large enough that every token of the prompt has a say."""
    kind = getattr(transformers, architecture)
    torch.manual_seed(0)
    made = kind(kind.config_class(**(ALWAYS | MORE)[architecture])).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=1.0 if "embed" in name or "wte" in name else 0.3)
    return made


@pytest.mark.parametrize("architecture", [*ALWAYS, *MORE])
def test_engines_score_and_generate_as_transformers_does(architecture: str, tmp_path: Path) -> None:
    if architecture in MORE and ALL not in os.environ:
        pytest.skip(f"one of many; {ALL}=1 takes them all, some minutes")
    folder = write_tiny_llama(tmp_path / "checkpoint", ["abcdefghij klmnopqrstuvwxyz"])
    eager = model(architecture)
    eager.save_pretrained(folder)
    described = decoder_description()
    (tmp_path / "engine").mkdir()
    export(folder, described, tmp_path)
    runner = OpenVinoGenerationRunner(tmp_path / "engine" / described.entry, described, 2)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        likely = torch.log_softmax(eager(ids).logits[0, :-1], 1)
        text = eager.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    wanted = likely[torch.arange(len(PROMPT) - 1), ids[0, 1:]]
    np.testing.assert_allclose(runner.score(PROMPT)[-len(wanted) :], wanted, atol=1e-3)
    assert generated(runner, PROMPT) == text[0, len(PROMPT) :].tolist()
