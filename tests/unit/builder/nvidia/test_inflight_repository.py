"""Every placeholder of the legacy repository gets a value, or its parameter goes; none is left for the server."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Batching, Limits
from enginewright_builder.tensorrt_llm.inflight_repository import MODELS, fill, placeholder_values

# toolchain contract, section 2, and the templates of 1.2: parameter key → placeholder where they differ.
KEYS = {"batching_strategy": "gpt_model_type", "engine_dir": "gpt_model_path"}
PARAMETERS = {
    "tensorrt_llm": """engine_dir batching_strategy max_beam_width encoder_engine_dir max_tokens_in_paged_kv_cache
        max_attention_window_size sink_token_length batch_scheduler_policy kv_cache_free_gpu_mem_fraction
        cross_kv_cache_fraction kv_cache_host_memory_bytes kv_cache_onboard_blocks exclude_input_in_output
        cancellation_check_period_ms stats_check_period_ms recv_poll_period_ms iter_stats_max_iterations
        request_stats_max_iterations enable_kv_cache_reuse normalize_log_probs enable_chunked_context gpu_device_ids
        participant_ids num_nodes lora_cache_optimal_adapter_size lora_cache_max_adapter_size
        lora_cache_gpu_memory_fraction lora_cache_host_memory_bytes lora_prefetch_dir decoding_mode
        lookahead_window_size lookahead_ngram_size lookahead_verification_set_size medusa_choices eagle_choices
        gpu_weights_percent enable_context_fmha_fp32_acc multi_block_mode cuda_graph_mode cuda_graph_cache_size
        speculative_decoding_fast_logits tokenizer_dir guided_decoding_backend xgrammar_tokenizer_info_path""",
    "preprocessing": "tokenizer_dir add_special_tokens multimodal_model_path engine_dir max_num_images hf_model_path",
    "postprocessing": "tokenizer_dir skip_special_tokens",
    "ensemble": "",
    "tensorrt_llm_bls": """accumulate_tokens tensorrt_llm_model_name tensorrt_llm_draft_model_name
        multimodal_encoders_name""",
}
HEADS = {
    "tensorrt_llm": """backend: "${triton_backend}"
max_batch_size: ${triton_max_batch_size}
model_transaction_policy { decoupled: ${decoupled_mode} }
dynamic_batching {
  preferred_batch_size: [ ${triton_max_batch_size} ]
  max_queue_delay_microseconds: ${max_queue_delay_microseconds}
  default_queue_policy: { max_queue_size: ${max_queue_size} }
}
input [
  { name: "encoder_input_features" data_type: ${encoder_input_features_data_type} dims: [ -1, -1 ] },
  { name: "prompt_embedding_table" data_type: ${prompt_embedding_table_data_type} dims: [ -1, -1 ] },
  { name: "draft_logits" data_type: ${logits_datatype} dims: [ -1, -1 ] }
]
""",
    "preprocessing": """max_batch_size: ${triton_max_batch_size}
instance_group [ { count: ${preprocessing_instance_count} kind: KIND_CPU } ]
""",
    "postprocessing": """max_batch_size: ${triton_max_batch_size}
instance_group [ { count: ${postprocessing_instance_count} kind: KIND_CPU } ]
""",
    "ensemble": """max_batch_size: ${triton_max_batch_size}
output [ { name: "context_logits" data_type: ${logits_datatype} dims: [ -1, -1 ] } ]
""",
    "tensorrt_llm_bls": """max_batch_size: ${triton_max_batch_size}
model_transaction_policy { decoupled: ${decoupled_mode} }
output [ { name: "context_logits" data_type: ${logits_datatype} dims: [ -1, -1 ] } ]
instance_group [ { count: ${bls_instance_count} kind : KIND_CPU } ]
""",
}


def template(model: str) -> str:
    """The placeholders of a model, in the shape of NVIDIA's template."""
    blocks = [
        f'parameters: {{\n  key: "{KEYS.get(name, name)}"\n  value: {{\n    string_value: "${{{name}}}"\n  }}\n}}\n'
        for name in PARAMETERS[model].split()
    ]
    return f'name: "{model}"\n{HEADS[model]}{"".join(blocks)}'


def filled(model: str) -> ModelConfig:
    values = placeholder_values(
        engine="/engine",
        tokenizer="/tokenizer",
        limits=Limits(max_batch_size=48, max_input_tokens=1024),
        batching=Batching(max_queue_delay_microseconds=500, max_queue_size=16),
    )
    text = fill(template(model), values, where=f"{model}/config.pbtxt")
    assert "${" not in text
    return text_format.Parse(text, ModelConfig())


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_left_open(model: str) -> None:
    found = filled(model)
    assert (found.name, found.max_batch_size) == (model, 48)
    assert all(parameter.string_value for parameter in found.parameters.values()), "an empty value is not always none"


def test_the_engine_model() -> None:
    found = filled("tensorrt_llm")
    parameters = {name: value.string_value for name, value in found.parameters.items()}
    assert found.backend == "tensorrtllm"
    assert found.model_transaction_policy.decoupled
    assert found.dynamic_batching.default_queue_policy.max_queue_size == 48, "a shorter queue would cap the batch"
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    assert parameters["gpt_model_path"] == "/engine"
    assert parameters["gpt_model_type"] == "inflight_fused_batching"
    assert parameters["batch_scheduler_policy"] == "guaranteed_no_evict"
    assert "lora_prefetch_dir" not in parameters


def test_a_placeholder_that_nobody_knows_is_named() -> None:
    with pytest.raises(DeterministicError, match="asks for brand_new") as caught:
        fill('parameters { key: "x" value: { string_value: "${brand_new}" } }', {}, where="tensorrt_llm/config.pbtxt")
    assert caught.value.reason == "TemplateMismatch"


def test_an_unset_value_outside_a_parameter_is_an_error_too() -> None:
    with pytest.raises(DeterministicError, match="asks for num_nodes"):
        fill("max_batch_size: ${num_nodes}", {"num_nodes": None}, where="x")
