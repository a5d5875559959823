"""The tokenizer inside a GGUF file as tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginewright_api.errors import DeterministicError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

_CONTROL, _USER_DEFINED = 3, 4
"""Kinds of tokens in tokenizer.ggml.token_type."""


def write_tokenizer(fields: Mapping[str, Any], into: Path, *, name: str, positions: int) -> None:
    """Raises DeterministicError FeatureNotAvailable for another kind than byte-level BPE."""
    tokenizer = _tokenizer(fields, name)
    (into / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", False)),
        **_special(fields),
    }
    template = fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    (into / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _tokenizer(fields: Mapping[str, Any], name: str) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Bytes
    from tokenizers.models import BPE

    kind = fields.get("tokenizer.ggml.model")
    tokens = fields.get("tokenizer.ggml.tokens")
    merges = fields.get("tokenizer.ggml.merges")
    if kind != "gpt2":
        raise DeterministicError(
            "FeatureNotAvailable",
            f"{name}: tokenizer {kind} cannot be read from GGUF; gpt2 (byte-level BPE) can."
            " Give the model as safetensors with its tokenizer.json",
        )
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise DeterministicError("InvalidCheckpoint", f"{name}: holds no tokenizer.ggml.tokens and .merges")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    try:
        model = BPE({token: index for index, token in enumerate(tokens)}, pairs)
    except Exception as error:  # the library raises bare Exception for merges of unknown tokens
        raise DeterministicError("InvalidCheckpoint", f"{name}: tokenizer.ggml.merges: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = _splitter(str(fields.get("tokenizer.ggml.pre", "default")), name)
    tokenizer.decoder = Bytes()
    kinds = fields.get("tokenizer.ggml.token_type") or []
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, kinds, strict=False)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    if fields.get("tokenizer.ggml.add_bos_token"):
        _begin_with(tokenizer, tokens, fields, name)
    return tokenizer


def _splitter(kind: str, name: str) -> PreTokenizer:
    """How text is cut before merging: llama.cpp's names for the regular expressions of the original tokenizers."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    plain = ByteLevel(add_prefix_space=False, use_regex=True)
    if kind in ("default", "gpt-2"):
        return plain
    if kind == "smollm":
        return Sequence([Digits(individual_digits=True), plain])
    raise DeterministicError(
        "FeatureNotAvailable",
        f"{name}: tokenizer.ggml.pre {kind} cannot be read from GGUF; gpt-2 and smollm can."
        " Give the model as safetensors with its tokenizer.json",
    )


def _begin_with(tokenizer: Tokenizer, tokens: list[str], fields: Mapping[str, Any], name: str) -> None:
    from tokenizers.processors import TemplateProcessing

    number = fields.get("tokenizer.ggml.bos_token_id")
    if not isinstance(number, int) or number >= len(tokens):
        raise DeterministicError("InvalidCheckpoint", f"{name}: add_bos_token without a tokenizer.ggml.bos_token_id")
    token = tokens[number]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, number)]
    )


def _special(fields: Mapping[str, Any]) -> dict[str, str]:
    tokens = fields.get("tokenizer.ggml.tokens", [])
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    numbers = {name: fields.get(f"tokenizer.ggml.{short}_token_id") for name, short in names.items()}
    return {name: tokens[n] for name, n in numbers.items() if isinstance(n, int) and n < len(tokens)}
