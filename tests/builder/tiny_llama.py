"""A small Llama with random weights; every width is divisible by 128, so that every quantised layout fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

ROTARY_BASE = 500000.0
VOCABULARY = 256
LAYERS = 2


def write_tiny_llama(folder: Path, texts: list[str]) -> Path:
    """Checkpoint in bfloat16 and a tokenizer of the texts' characters, written by the transformers that is here."""
    torch.manual_seed(0)
    newer = int(transformers.__version__.partition(".")[0]) >= 5
    rope: dict[str, Any] = {"rope_parameters": {"rope_theta": ROTARY_BASE, "rope_type": "default"}}
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        **(rope if newer else {"rope_theta": ROTARY_BASE}),
    )
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    characters = sorted(set("".join(texts)))[: VOCABULARY - 3]
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{one: index for index, one in enumerate(characters, start=3)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "TokenizersBackend" if newer else "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def llm_description(flavor: str = "PyTorch", **parallelism: int) -> dict[str, Any]:
    """engine.json of it for TensorRT-LLM."""
    return {
        "task": "TextGeneration",
        "backend": "TensorRTLLM",
        "entry": "llmapi" if flavor == "PyTorch" else "engine",
        "inputs": ["input_ids", "attention_mask", "position_ids"],
        "output": "logits",
        "outputDimension": VOCABULARY,
        "limits": {"maxBatchSize": 4, "maxInputTokens": 64, "maxOutputTokens": 32},
        "generation": {"maxContextTokens": 96, "eosTokenIds": [2]},
        "tensorRTLLM": {"flavor": flavor, "parallelism": parallelism},
        "runtimePackage": "tensorrt_llm",
        "runtimeVersion": "1.2.1",
    }
