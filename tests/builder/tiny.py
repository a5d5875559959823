"""Small random checkpoints of several architectures, saved the Hugging Face way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SIZES = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64}


def _roberta(**extra: Any) -> Any:
    return transformers.RobertaConfig(**SIZES, max_position_embeddings=66, pad_token_id=1, **extra)


CONFIGS: dict[str, Any] = {
    "bert": ("BertModel", lambda: transformers.BertConfig(**SIZES)),
    "bert-classes": ("BertForSequenceClassification", lambda: transformers.BertConfig(**SIZES, num_labels=3)),
    "roberta-tokens": ("RobertaForTokenClassification", lambda: _roberta(num_labels=5)),
    "distilbert": (
        "DistilBertForSequenceClassification",
        lambda: transformers.DistilBertConfig(vocab_size=99, dim=32, n_heads=4, n_layers=3, hidden_dim=64),
    ),
    "llama": (
        "LlamaForCausalLM",
        lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    ),
    "qwen2": (
        "Qwen2ForCausalLM",
        lambda: transformers.Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=False),
    ),
    "mistral": ("MistralForCausalLM", lambda: transformers.MistralConfig(**SIZES, num_key_value_heads=2)),
}
TASKS = {
    "bert": "Embedding",
    "bert-classes": "Classification",
    "roberta-tokens": "TokenClassification",
    "distilbert": "Classification",
    "llama": "TextGeneration",
    "qwen2": "TextGeneration",
    "mistral": "TextGeneration",
}


def save_tiny(name: str, folder: Path, *, seed: int = 0, dtype: str = "float32") -> Path:
    """A random model of these few sizes, with a tokenizer.json that names every token `w<i>`."""
    architecture, config = CONFIGS[name]
    torch.manual_seed(seed)
    model = getattr(transformers, architecture)(config()).to(getattr(torch, dtype))
    with torch.no_grad():  # the usual deviation of 0.02 gives tiny models that hardly compute anything
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
    model.save_pretrained(folder)
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {f"w{index}": index for index in range(2, SIZES["vocab_size"])}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def ids(rows: int = 3, tokens: int = 12, *, seed: int = 0) -> torch.Tensor:
    """Token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, SIZES["vocab_size"], (rows, tokens), generator=generator)


def outputs(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits, or states of a model without a head."""
    with torch.no_grad():
        answer = model(tokens)
    found = answer.logits if "logits" in answer else answer.last_hidden_state
    assert isinstance(found, torch.Tensor)
    return found
