"""The `trtllm-build` command line of TensorRT-LLM 1.2.1 and before. There is none in 1.3 and later.

Parallelism is no flag: it comes from the checkpoint's mapping. Every flag whose default differs between the
documentation and the code, or between releases, is written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from enginewright_api.serving_spec import Limits

PROGRAM = "trtllm-build"
TOKENS_PER_BLOCK = 32
_TOKENS_IN_A_STEP = 8192
_Switch = Literal["enable", "disable"]
_Plugin = Literal["auto", "float16", "float32", "bfloat16", "int32", "fp8", "nvfp4", "disable"]


@dataclass(frozen=True, slots=True)
class BuildFlags:
    """Flags of one engine, named as on the command line."""

    checkpoint_dir: str
    output_dir: str
    workers: int
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_beam_width: int = 1
    kv_cache_type: Literal["continuous", "paged", "disabled"] = "paged"
    tokens_per_block: int = TOKENS_PER_BLOCK
    gemm_plugin: _Plugin = "auto"
    gpt_attention_plugin: _Plugin = "auto"
    nccl_plugin: _Plugin = "auto"
    fp8_rowwise_gemm_plugin: _Plugin = "disable"
    context_fmha: _Switch = "enable"
    use_paged_context_fmha: _Switch = "enable"
    use_fp8_context_fmha: _Switch = "disable"
    remove_input_padding: _Switch = "enable"
    multiple_profiles: _Switch = "disable"

    def arguments(self) -> list[str]:
        """argv, in the order of the fields."""
        pairs = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return [PROGRAM, *(part for name, value in pairs for part in (f"--{name}", str(value)))]


def build_flags(
    *,
    checkpoint: PurePath,
    engine: PurePath,
    limits: Limits,
    world_size: int,
    algorithm: str = "",
    kv_cache_algorithm: str = "",
) -> BuildFlags:
    """Flags for a checkpoint with this `quant_algo` and `kv_cache_quant_algo` (empty: none).

    A step may hold fewer tokens than the longest input: long inputs then come in chunks, which needs paged context
    attention. The GEMM plugin stays off for FP8, whose products TensorRT itself does faster.
    """
    return BuildFlags(
        checkpoint_dir=str(checkpoint),
        output_dir=str(engine),
        workers=world_size,
        max_batch_size=limits.max_batch_size,
        max_input_len=limits.max_input_tokens,
        max_seq_len=limits.max_input_tokens + limits.max_output_tokens,
        max_num_tokens=tokens_in_a_step(limits),
        gemm_plugin="disable" if algorithm.startswith("FP8") else "auto",
        fp8_rowwise_gemm_plugin="auto" if algorithm == "FP8_PER_CHANNEL_PER_TOKEN" else "disable",
        use_fp8_context_fmha="enable" if kv_cache_algorithm == "FP8" and algorithm.startswith("FP8") else "disable",
    )


def tokens_in_a_step(limits: Limits) -> int:
    """Most tokens one execution takes: the tool's default, or one token of each request where that is more."""
    return max(_TOKENS_IN_A_STEP, limits.max_batch_size)
