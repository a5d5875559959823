"""Triton's `inflight_batcher_llm` repository for engines: every placeholder of the image's templates.

The templates come with the image, below TEMPLATES, and differ a little between releases. Filling them as they are
keeps model code and configuration of one release together; what a newer template asks for and nobody answers is an
error that names it, where NVIDIA's own script would leave `${…}` for the server to trip over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Batching, KvCache, Limits
from enginewright_builder.tensorrt_llm.build_command import tokens_in_a_step

TEMPLATES = "/app/all_models/inflight_batcher_llm"
MODELS = ("preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls")
_UNSET = (
    "encoder_engine_dir", "max_tokens_in_paged_kv_cache", "max_attention_window_size", "sink_token_length",
    "cross_kv_cache_fraction", "kv_cache_onboard_blocks", "enable_trt_overlap", "stats_check_period_ms",
    "recv_poll_period_ms", "iter_stats_max_iterations", "request_stats_max_iterations", "gpu_device_ids",
    "participant_ids", "num_nodes", "lora_cache_optimal_adapter_size", "lora_cache_max_adapter_size",
    "lora_cache_gpu_memory_fraction", "lora_cache_host_memory_bytes", "lora_prefetch_dir", "decoding_mode",
    "lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size", "medusa_choices",
    "eagle_choices", "gpu_weights_percent", "enable_context_fmha_fp32_acc", "multi_block_mode", "cuda_graph_mode",
    "cuda_graph_cache_size", "speculative_decoding_fast_logits", "guided_decoding_backend",
    "xgrammar_tokenizer_info_path", "multimodal_model_path", "multimodal_encoders_name", "max_num_images",
    "hf_model_path", "tensorrt_llm_draft_model_name",
)  # fmt: skip
"""Left to the runtime's default: their parameter is taken out, for an empty value is not always read as none."""

_PARAMETER = re.compile(
    r'parameters:?\s*\{\s*key:\s*"(?P<key>[^"]+)"\s*value:\s*\{\s*string_value:\s*"\$\{(?P<name>\w+)\}"\s*\}\s*\}\n?'
)
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_BYTES_PER_GIB = 1024**3

Values = Mapping[str, str | None]


def placeholder_values(
    *,
    engine: str,
    tokenizer: str,
    limits: Limits,
    batching: Batching,
    kv_cache: KvCache | None = None,
    logits: str = "TYPE_FP32",
    instances: int = 1,
) -> dict[str, str | None]:
    """Value of every placeholder, one table for all five models; None leaves it to the runtime's default.

    `engine` and `tokenizer` are folders as the server sees them.
    """
    kept = kv_cache or KvCache()
    host_bytes = int(kept.host_memory_gib * _BYTES_PER_GIB)
    return {
        **dict.fromkeys(_UNSET),
        "triton_backend": "tensorrtllm",
        "triton_max_batch_size": str(limits.max_batch_size),
        "decoupled_mode": "true",
        "max_queue_delay_microseconds": str(batching.max_queue_delay_microseconds),
        # A queue shorter than the batch would cap the batch.
        "max_queue_size": str(max(batching.max_queue_size, limits.max_batch_size)),
        "engine_dir": engine,
        "tokenizer_dir": tokenizer,
        "batching_strategy": "inflight_fused_batching",
        "batch_scheduler_policy": "guaranteed_no_evict",
        "encoder_input_features_data_type": "TYPE_FP16",
        "prompt_embedding_table_data_type": "TYPE_FP16",
        "logits_datatype": logits,
        "max_beam_width": "1",
        "kv_cache_free_gpu_mem_fraction": str(kept.memory_fraction),
        "kv_cache_host_memory_bytes": str(host_bytes) if host_bytes else None,
        "enable_kv_cache_reuse": _flag(kept.reuse),
        "exclude_input_in_output": "true",
        "cancellation_check_period_ms": "100",
        "normalize_log_probs": "true",
        "enable_chunked_context": _flag(limits.max_input_tokens > tokens_in_a_step(limits)),
        "add_special_tokens": "true",
        "skip_special_tokens": "true",
        "preprocessing_instance_count": str(instances),
        "postprocessing_instance_count": str(instances),
        "bls_instance_count": str(instances),
        "accumulate_tokens": "false",
        "tensorrt_llm_model_name": "tensorrt_llm",
    }


def fill(template: str, values: Values, *, where: str) -> str:
    """The template's text with no placeholder left. Raises DeterministicError TemplateMismatch naming one that is."""

    def without_unset(found: re.Match[str]) -> str:
        name = found["name"]
        return "" if name in values and values[name] is None else found[0]

    def value(found: re.Match[str]) -> str:
        wanted = values.get(found[1])
        if wanted is None:
            raise DeterministicError(
                "TemplateMismatch",
                f"{where}: asks for {found[1]}, which has no value; this image is not one of the version matrix",
            )
        return wanted

    return _PLACEHOLDER.sub(value, _PARAMETER.sub(without_unset, template))


def _flag(value: bool) -> str:
    return "true" if value else "false"
