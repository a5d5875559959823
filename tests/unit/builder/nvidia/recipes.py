"""Recipes of the golden tables."""

from __future__ import annotations

from typing import Any

from enginewright_api.recipe import Recipe

SOURCE = {"package": {"name": "llama", "version": "1.0.0", "path": "model"}}

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
}
SMOLLM2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
MIXTRAL: dict[str, Any] = LLAMA | {"architectures": ["MixtralForCausalLM"], "num_local_experts": 8}


def llm(**changes: Any) -> Recipe:
    """A text generation recipe for TensorRT-LLM."""
    limits = {"maxBatchSize": 64, "maxInputTokens": 4096, "maxOutputTokens": 1024}
    base = {"source": SOURCE, "task": "TextGeneration", "backend": "TensorRTLLM", "limits": limits}
    return Recipe.model_validate(base | changes)


def encoder(**changes: Any) -> Recipe:
    """An embedding recipe for TensorRT."""
    limits = {"maxBatchSize": 32, "maxInputTokens": 512}
    return Recipe.model_validate(
        {"source": SOURCE, "task": "Embedding", "backend": "TensorRT", "limits": limits} | changes
    )
