"""Arguments of TensorRT-LLM's LLM API, as the YAML that `trtllm-serve` and Triton's `llmapi` model read.

Unknown keys are errors there, so they are errors here. Each setting stands in the YAML only: between command line and
YAML the precedence differs between releases.
"""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format, KvCacheFormat, Quantization
from enginewright_api.serving_spec import KvCache, Limits, Parallelism, SpeculativeDecoding, SpeculativeMethod
from enginewright_builder.tensorrt_llm.build_command import TOKENS_PER_BLOCK, tokens_in_a_step

_BYTES_PER_GIB = 1024**3
_NGRAM = 4
"""Longest suffix of the text that is looked up; TensorRT-LLM's own default differs between releases."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KvCacheConfig(_Strict):
    """Memory for keys and values."""

    dtype: Literal["auto", "fp8"] = "auto"
    free_gpu_memory_fraction: float
    enable_block_reuse: bool
    tokens_per_block: int = TOKENS_PER_BLOCK
    max_tokens: int | None = None
    host_cache_size: int | None = None
    """Bytes."""


class CudaGraphConfig(_Strict):
    """Batches whose decoding steps are captured."""

    max_batch_size: int
    enable_padding: bool = True


class SchedulerConfig(_Strict):
    """Whether a started request may be paused for memory."""

    capacity_scheduler_policy: Literal["GUARANTEED_NO_EVICT", "MAX_UTILIZATION"] = "GUARANTEED_NO_EVICT"


class SpeculativeConfig(_Strict):
    """Who drafts. Medusa and lookahead exist for engines only."""

    decoding_type: Literal["NGram", "Eagle", "MTP", "DraftTarget"]
    max_draft_len: int | None = None
    max_matching_ngram_size: int | None = None
    num_nextn_predict_layers: int | None = None
    speculative_model: str | None = None


class LlmArguments(_Strict):
    """What `LLM(**arguments)` takes, as far as this product sets it."""

    model: str
    backend: Literal["pytorch"] = "pytorch"
    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    context_parallel_size: int = 1
    moe_expert_parallel_size: int | None = None
    moe_tensor_parallel_size: int | None = None
    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    kv_cache_config: KvCacheConfig
    cuda_graph_config: CudaGraphConfig
    scheduler_config: SchedulerConfig = SchedulerConfig()
    enable_chunked_prefill: bool
    disable_overlap_scheduler: bool = False
    guided_decoding_backend: Literal["xgrammar", "llguidance"] | None = None
    speculative_config: SpeculativeConfig | None = None
    return_perf_metrics: bool = True

    def to_yaml(self, **more: dict[str, Any]) -> str:
        """YAML text in the order of the fields, unset ones left out; `more` are further top-level keys."""
        return yaml.safe_dump({**self.model_dump(exclude_none=True), **more}, sort_keys=False)


def llm_arguments(
    *,
    model: str,
    limits: Limits,
    parallelism: Parallelism,
    quantization: Quantization | None = None,
    kv_cache: KvCache | None = None,
    speculative: SpeculativeDecoding | None = None,
    draft_model: str | None = None,
) -> LlmArguments:
    """Arguments of one deployment; the checkpoint's own files say how its weights are quantised.

    Raises DeterministicError FeatureNotAvailable for a drafting method whose model is not given.
    """
    kept = kv_cache or KvCache()
    experts = parallelism.expert if parallelism.expert > 1 else None
    drafted = _speculative(speculative, draft_model) if speculative is not None else None
    steps = tokens_in_a_step(limits)
    return LlmArguments(
        model=model,
        dtype=_dtype(quantization),
        tensor_parallel_size=parallelism.tensor,
        pipeline_parallel_size=parallelism.pipeline,
        context_parallel_size=parallelism.context,
        moe_expert_parallel_size=experts,
        moe_tensor_parallel_size=parallelism.tensor // experts if experts else None,
        max_batch_size=limits.max_batch_size,
        max_num_tokens=steps,
        max_seq_len=limits.max_input_tokens + limits.max_output_tokens,
        kv_cache_config=KvCacheConfig(
            dtype=_kv_dtype(quantization),
            free_gpu_memory_fraction=kept.memory_fraction,
            enable_block_reuse=kept.reuse,
            host_cache_size=int(kept.host_memory_gib * _BYTES_PER_GIB) or None,
        ),
        cuda_graph_config=CudaGraphConfig(max_batch_size=limits.max_batch_size),
        enable_chunked_prefill=limits.max_input_tokens > steps,
        # These two drafters run on the host between steps, which overlapping would skip.
        disable_overlap_scheduler=drafted is not None and drafted.decoding_type in ("NGram", "DraftTarget"),
        speculative_config=drafted,
    )


def _dtype(quantization: Quantization | None) -> Literal["auto", "float16", "bfloat16"]:
    wanted = quantization.format if quantization is not None else Format.NONE
    if wanted is Format.FP16:
        return "float16"
    return "bfloat16" if wanted is Format.BF16 else "auto"


def _kv_dtype(quantization: Quantization | None) -> Literal["auto", "fp8"]:
    fp8 = quantization is not None and quantization.kv_cache_format is KvCacheFormat.FP8
    return "fp8" if fp8 else "auto"


def _speculative(wanted: SpeculativeDecoding, draft_model: str | None) -> SpeculativeConfig:
    tokens = wanted.draft_tokens
    if wanted.method is SpeculativeMethod.NGRAM:
        return SpeculativeConfig(decoding_type="NGram", max_draft_len=tokens, max_matching_ngram_size=_NGRAM)
    if wanted.method is SpeculativeMethod.MTP:
        return SpeculativeConfig(decoding_type="MTP", max_draft_len=tokens, num_nextn_predict_layers=tokens)
    if draft_model is None:
        raise DeterministicError(
            "FeatureNotAvailable",
            f"runtime.speculativeDecoding.method: {wanted.method.value} needs a draft model; use NGram",
        )
    kind: Literal["Eagle", "DraftTarget"] = "Eagle" if wanted.method is SpeculativeMethod.EAGLE3 else "DraftTarget"
    return SpeculativeConfig(decoding_type=kind, max_draft_len=tokens, speculative_model=draft_model)
