"""config.json of a TensorRT-LLM checkpoint: what must be in it, checked before an engine is built from it."""

from __future__ import annotations

from typing import Any

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Parallelism

MANDATORY = (
    "architecture", "dtype", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
    "mapping", "quantization",
)  # fmt: skip
_AWQ_GROUP = 128
_ALGORITHM = "quant_algo"


def mapping_of(parallelism: Parallelism) -> dict[str, int]:
    """The checkpoint's `mapping`: ranks are numbered tensor first, then pipeline."""
    return {
        "world_size": parallelism.tensor * parallelism.pipeline * parallelism.context,
        "tp_size": parallelism.tensor,
        "pp_size": parallelism.pipeline,
        "cp_size": parallelism.context,
        "moe_tp_size": parallelism.tensor // parallelism.expert,
        "moe_ep_size": parallelism.expert,
    }


def quantization_of(
    algorithm: str, kv_cache_algorithm: str = "", *, group_size: int = _AWQ_GROUP, exclude: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The checkpoint's `quantization`. The group size is written out: code and documentation differ on its default."""
    found: dict[str, Any] = {_ALGORITHM: algorithm or None, "kv_cache_quant_algo": kv_cache_algorithm or None}
    if algorithm == "W4A16_AWQ":
        found |= {"group_size": group_size, "has_zero_point": False, "pre_quant_scale": True}
    if algorithm == "NVFP4":
        found |= {"group_size": 16}
    if exclude:
        found["exclude_modules"] = list(exclude)
    return found


def completed(
    config: dict[str, Any],
    *,
    parallelism: Parallelism,
    quantization: dict[str, Any],
    rotary_base: float | None,
) -> dict[str, Any]:
    """The exporter's config.json with everything written out.

    Raises DeterministicError CheckpointMismatch when the exporter wrote something else than was asked for: an engine
    would be built from it without complaint.
    """
    absent = [name for name in MANDATORY if config.get(name) is None]
    if absent:
        raise _mismatch(f"has no {absent[0]}")
    mapping = mapping_of(parallelism)
    for name, value in config["mapping"].items():
        if mapping.get(name, value) != value:
            raise _mismatch(f"mapping.{name} is {value}, asked for {mapping[name]}")
    written = config["quantization"]
    for name, wanted in quantization.items():
        if name != "exclude_modules" and written.get(name, wanted) != wanted:
            raise _mismatch(f"quantization.{name} is {written[name]}, asked for {wanted}")
    base = config.get("rotary_base")
    if rotary_base is not None and base != rotary_base:
        raise _mismatch(
            f"rotary_base is {base}, the model has {rotary_base}; ModelOpt loses it under transformers 5,"
            " export in toolchain modelopt"
        )
    return {**config, "mapping": mapping, "quantization": {**quantization, **written}}


def _mismatch(what: str) -> DeterministicError:
    return DeterministicError("CheckpointMismatch", f"config.json of the TensorRT-LLM checkpoint: {what}")
