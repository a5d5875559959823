"""What each recipe would run and write: flavours × formats × parallelism, as golden files, and the rules they obey."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from enginewright_api.errors import DeterministicError
from enginewright_api.nvidia import matrix
from enginewright_api.serving_spec import KvCache
from enginewright_builder.tensorrt_llm.plan import Plan, plan_of
from tests.unit.builder.nvidia.recipes import llm

ENGINE = {"tensorRTLLM": {"flavor": "Engine"}}
FP8_KV = {"format": "FP8", "method": "MinMax", "kvCacheFormat": "FP8"}
AWQ_64 = {"format": "INT4", "method": "AWQ", "granularity": "PerGroup", "groupSize": 64}

PLANS: dict[str, dict[str, Any]] = {
    "pytorch-none": {},
    "pytorch-bf16": {"quantization": {"format": "BF16"}},
    "pytorch-fp8-kv-tp2": {"quantization": FP8_KV, "parallelism": {"tensor": 2}},
    "pytorch-nvfp4-tp4-pp2": {
        "quantization": {"format": "NVFP4", "method": "MinMax"},
        "parallelism": {"tensor": 4, "pipeline": 2},
    },
    "pytorch-int4-awq-ep4": {
        "quantization": {"format": "INT4", "method": "AWQ"},
        "parallelism": {"tensor": 8, "expert": 4},
    },
    "pytorch-context2": {"parallelism": {"context": 2}},
    "pytorch-ngram": {"speculativeDecoding": {"method": "NGram", "draftTokens": 5}},
    "pytorch-mtp": {"speculativeDecoding": {"method": "MTP", "draftTokens": 2}},
    "pytorch-long-inputs": {"limits": {"maxBatchSize": 8, "maxInputTokens": 32768, "maxOutputTokens": 2048}},
    "engine-none": ENGINE,
    "engine-fp8-kv-tp2-pp2": {**ENGINE, "quantization": FP8_KV, "parallelism": {"tensor": 2, "pipeline": 2}},
    "engine-fp8-dynamic": {**ENGINE, "quantization": {"format": "FP8", "method": "Dynamic"}},
    "engine-int8-smoothquant-kv-int8": {
        **ENGINE,
        "quantization": {"format": "INT8", "method": "SmoothQuant", "kvCacheFormat": "INT8"},
    },
    "engine-int4-awq-group64": {**ENGINE, "quantization": AWQ_64},
}

# toolchain contract, section 1: every flag of trtllm-build 1.2.1.
FLAGS = set(
    """checkpoint_dir model_config build_config output_dir workers log_level dry_run monitor_memory input_timing_cache
    output_timing_cache profiling_verbosity max_batch_size max_input_len max_seq_len max_num_tokens opt_num_tokens
    max_beam_width max_encoder_input_len max_prompt_embedding_table_size kv_cache_type tokens_per_block gemm_plugin
    gpt_attention_plugin bert_attention_plugin nccl_plugin moe_plugin lora_plugin gemm_swiglu_plugin
    fp8_rowwise_gemm_plugin low_latency_gemm_plugin low_latency_gemm_swiglu_plugin gemm_allreduce_plugin
    mamba_conv1d_plugin context_fmha use_paged_context_fmha use_fp8_context_fmha remove_input_padding use_fused_mlp
    paged_state multiple_profiles reduce_fusion user_buffer norm_quant_fusion fuse_fp4_quant pp_reduce_scatter
    speculative_decoding_mode max_draft_len weight_sparsity weight_streaming strip_plan fast_build logits_dtype
    gather_context_logits lora_dir lora_target_modules max_lora_rank""".split()  # noqa: SIM905 - as it stands there
)
# The same of the LLM YAML, and what Triton's llmapi model adds.
LLM_KEYS = set(
    """model backend dtype tensor_parallel_size pipeline_parallel_size context_parallel_size moe_expert_parallel_size
    moe_tensor_parallel_size kv_cache_config cuda_graph_config scheduler_config enable_chunked_prefill max_batch_size
    max_num_tokens max_seq_len guided_decoding_backend speculative_config disable_overlap_scheduler return_perf_metrics
    triton_config""".split()  # noqa: SIM905
)
KV_KEYS = {
    "dtype", "free_gpu_memory_fraction", "enable_block_reuse", "tokens_per_block", "max_tokens", "host_cache_size",
}  # fmt: skip


def planned(name: str) -> Plan:
    return plan_of(llm(**PLANS[name]))


def model_yaml(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(plan.files["tensorrt_llm/1/model.yaml"])
    return found


@pytest.mark.parametrize("name", PLANS)
def test_plan(name: str, golden: SnapshotAssertion) -> None:
    assert asdict(planned(name)) == golden(name=name)


@pytest.mark.parametrize("name", [name for name in PLANS if name.startswith("engine")])
def test_only_flags_that_exist_are_given(name: str) -> None:
    build = planned(name).commands[0]
    given = [part.removeprefix("--") for part in build[1:] if part.startswith("--")]
    assert build[0] == "trtllm-build"
    assert len(given) == len(set(given))
    assert set(given) <= FLAGS
    # Parallelism is the checkpoint's, and these are an error together.
    assert not {"tp_size", "pp_size", "auto_parallel"} & set(given)
    assert build[build.index("--multiple_profiles") + 1] == "disable"


@pytest.mark.parametrize("name", [name for name in PLANS if name.startswith("pytorch")])
def test_only_keys_that_exist_are_written(name: str) -> None:
    found = model_yaml(planned(name))
    assert set(found) <= LLM_KEYS
    assert set(found["kv_cache_config"]) <= KV_KEYS
    assert found["triton_config"]["max_batch_size"] == 0


def test_every_kernel_of_the_matrix_has_a_plan_in_each_of_its_flavours() -> None:
    for kernel in matrix().tensorrt_llm:
        for flavor in kernel.flavors:
            block = {"format": kernel.format.value, "method": kernel.method.value}
            plan = plan_of(llm(tensorRTLLM={"flavor": flavor.value}, quantization=block))
            assert (plan.algorithm, plan.flavor) == (kernel.algorithm, flavor)


def test_a_replica_takes_tensor_times_pipeline_times_context_gpus() -> None:
    assert planned("pytorch-nvfp4-tp4-pp2").world_size == 8
    assert planned("pytorch-context2").world_size == 2
    assert planned("pytorch-int4-awq-ep4").world_size == 8, "experts are spread over the same GPUs"


def test_an_engine_of_four_ranks_starts_four_servers_of_which_one_answers() -> None:
    launch = planned("engine-fp8-kv-tp2-pp2").commands[1]
    assert launch[0] == "mpirun"
    assert launch.count(":") == launch.count("-n") == 4
    assert launch.count("--model-control-mode=explicit") == 3
    assert len({part for part in launch if "shm-region-prefix-name" in part}) == 4


def test_long_inputs_are_prefilled_in_chunks() -> None:
    assert model_yaml(planned("pytorch-long-inputs"))["enable_chunked_prefill"] is True
    assert model_yaml(planned("pytorch-none"))["enable_chunked_prefill"] is False


def test_settings_of_the_key_value_cache_reach_both_flavours() -> None:
    kept = KvCache(memory_fraction=0.5, reuse=False, host_memory_gib=2.0)
    cache = model_yaml(plan_of(llm(), kv_cache=kept))["kv_cache_config"]
    assert (cache["free_gpu_memory_fraction"], cache["enable_block_reuse"]) == (0.5, False)
    assert cache["host_cache_size"] == 2 * 2**30
    values = plan_of(llm(**ENGINE), kv_cache=kept).placeholders
    assert values["kv_cache_free_gpu_mem_fraction"] == "0.5"
    assert values["enable_kv_cache_reuse"] == "false"
    assert values["kv_cache_host_memory_bytes"] == str(2 * 2**30)


@pytest.mark.parametrize("method", ["EAGLE3", "DraftModel"])
def test_a_drafter_whose_model_nobody_names_is_refused(method: str) -> None:
    with pytest.raises(DeterministicError, match=f"{method} needs a draft model"):
        plan_of(llm(speculativeDecoding={"method": method}))


def test_a_method_without_kernel_is_refused_by_name() -> None:
    with pytest.raises(DeterministicError, match="no kernel for INT4 GPTQ"):
        plan_of(llm(quantization={"format": "INT4", "method": "GPTQ"}))
