"""config.json and tokenizer_config.json as transformers 4 reads them.

TensorRT-LLM 1.2 uses transformers 4.57. Files that transformers 5 wrote load there without complaint and wrongly: the
rotary base sits in `rope_parameters`, which 4.x ignores, so that it falls back to 10000; and the tokenizer's class has
a name that 4.x does not know.
"""

from __future__ import annotations

from typing import Any

_TOKENIZER_OF_5 = "TokenizersBackend"
_TOKENIZER_OF_4 = "PreTrainedTokenizerFast"


def for_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """The same model's config.json; one that 4.x wrote comes back equal."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return dict(config)
    kept = {name: value for name, value in config.items() if name != "rope_parameters"}
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    plain = scaling.get("rope_type", "default") == "default"
    return {**kept, "rope_theta": rope["rope_theta"], "rope_scaling": None if plain else scaling}


def in_sixteen_bits(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The same model computing in float16 or bfloat16: loaders take the type from here. 4.x knows it by either name."""
    return {**config, "dtype": dtype, "torch_dtype": dtype}


def tokenizer_for_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer's tokenizer_config.json."""
    if config.get("tokenizer_class") != _TOKENIZER_OF_5:
        return dict(config)
    return {**config, "tokenizer_class": _TOKENIZER_OF_4}


def rotary_base(config: dict[str, Any]) -> float | None:
    """Base of the rotary embedding, whoever wrote the file; None for a model without one."""
    theta = for_transformers_4(config).get("rope_theta")
    return float(theta) if theta is not None else None
