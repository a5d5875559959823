"""What parallelism and group sizes must divide, and what a checkpoint's config.json must say."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Parallelism
from enginewright_builder.tensorrt_llm.checkpoint_config import completed, mapping_of, quantization_of
from enginewright_builder.tensorrt_llm.huggingface_config import (
    for_transformers_4,
    rotary_base,
    tokenizer_for_transformers_4,
)
from enginewright_builder.tensorrt_llm.shape import check_group_size, check_parallelism, decoder_shape
from tests.unit.builder.nvidia.recipes import LLAMA, MIXTRAL, SMOLLM2


@pytest.mark.parametrize(
    ("config", "parallelism", "sentence"),
    [
        (LLAMA, {"tensor": 8, "pipeline": 4}, None),
        (LLAMA, {"tensor": 16}, None),  # 8 key-value heads are doubled on 16 shards
        (LLAMA, {"tensor": 6}, "parallelism.tensor: 6 must divide the 32 attention heads"),
        (LLAMA, {"pipeline": 5}, "parallelism.pipeline: 5 must divide the 32 layers"),
        (LLAMA, {"tensor": 2, "expert": 2}, "parallelism.expert: 2, but the model has no experts; leave it at 1"),
        (MIXTRAL, {"tensor": 8, "expert": 4}, None),
        (MIXTRAL, {"tensor": 16, "expert": 16}, "parallelism.expert: 16 must divide the 8 experts"),
        (MIXTRAL, {"tensor": 2, "expert": 4}, "parallelism.expert: 4 must divide parallelism.tensor (2)"),
        (SMOLLM2, {"tensor": 2}, "parallelism.tensor: 2 must divide the 9 attention heads"),
        (
            {**SMOLLM2, "num_attention_heads": 12},
            {"tensor": 4},
            "parallelism.tensor: 4 must divide or be a multiple of the 3 key-value heads",
        ),
    ],
)
def test_parallelism_divides_the_model(config: dict[str, Any], parallelism: Any, sentence: str | None) -> None:
    shape, wanted = decoder_shape(config), Parallelism.model_validate(parallelism)
    if sentence is None:
        check_parallelism(shape, wanted)
        return
    with pytest.raises(DeterministicError) as caught:
        check_parallelism(shape, wanted)
    assert (caught.value.reason, caught.value.message) == ("ParallelismMismatch", sentence)


def test_a_group_is_not_cut_by_the_width() -> None:
    with pytest.raises(DeterministicError) as caught:
        check_group_size(decoder_shape(SMOLLM2), 128, tensor=1)
    assert caught.value.reason == "GroupSizeMismatch"
    assert caught.value.message == (
        "optimization.quantization.groupSize: in_features 576 of model.layers.0.self_attn.q_proj is not divisible by"
        " 128; use groupSize 64"
    )
    check_group_size(decoder_shape(SMOLLM2), 64, tensor=1)


def test_a_group_is_not_cut_by_a_shard() -> None:
    shape = decoder_shape(LLAMA)
    check_group_size(shape, 128, tensor=16)
    with pytest.raises(DeterministicError) as caught:
        check_group_size(shape, 128, tensor=32)
    assert "in_features 448 (14336 on 32 shards) of model.layers.0.mlp.down_proj" in caught.value.message
    assert caught.value.message.endswith("use groupSize 64")


def test_a_config_that_lacks_a_size_is_named() -> None:
    with pytest.raises(DeterministicError, match="has no num_hidden_layers"):
        decoder_shape({name: value for name, value in LLAMA.items() if name != "num_hidden_layers"})


ROPE_OF_5 = {"rope_theta": 500000.0, "rope_type": "default"}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}


def test_a_config_of_transformers_5_keeps_its_rotary_base() -> None:
    """transformers 4 ignores rope_parameters and takes 10000."""
    written = {name: value for name, value in LLAMA.items() if name != "rope_theta"} | {"rope_parameters": ROPE_OF_5}
    found = for_transformers_4(written)
    assert found["rope_theta"] == rotary_base(written) == 500000.0
    assert found["rope_scaling"] is None
    assert "rope_parameters" not in found


def test_scaling_of_the_rotary_embedding_survives() -> None:
    found = for_transformers_4({"rope_parameters": {"rope_theta": 500000.0, **LLAMA3_SCALING}})
    assert found == {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING}


def test_files_of_transformers_4_stay_as_they_are() -> None:
    assert for_transformers_4(LLAMA) == LLAMA
    assert rotary_base({}) is None
    assert tokenizer_for_transformers_4({"tokenizer_class": "LlamaTokenizer"}) == {"tokenizer_class": "LlamaTokenizer"}


def test_the_tokenizer_class_of_transformers_5_is_renamed() -> None:
    found = tokenizer_for_transformers_4({"tokenizer_class": "TokenizersBackend", "bos_token": "<s>"})
    assert found == {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}


EXPORTED: dict[str, Any] = {
    "architecture": "LlamaForCausalLM",
    "dtype": "bfloat16",
    "vocab_size": 512,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "hidden_act": "silu",
    "rotary_base": 500000.0,
    "mapping": {"world_size": 4, "tp_size": 2, "pp_size": 2},
    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]},
}


def complete(**changes: Any) -> dict[str, Any]:
    return completed(
        EXPORTED | changes,
        parallelism=Parallelism(tensor=2, pipeline=2),
        quantization=quantization_of("FP8"),
        rotary_base=500000.0,
    )


def test_what_the_exporter_leaves_out_is_written() -> None:
    found = complete()
    assert found["mapping"] == {
        "world_size": 4, "tp_size": 2, "pp_size": 2, "cp_size": 1, "moe_tp_size": 2, "moe_ep_size": 1,
    }  # fmt: skip
    assert found["quantization"]["exclude_modules"] == ["lm_head"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rotary_base": None}, "rotary_base is None, the model has 500000.0"),
        ({"rotary_base": 10000.0}, "rotary_base is 10000.0"),
        ({"hidden_act": None}, "has no hidden_act"),
        ({"mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1}}, "mapping.world_size is 1, asked for 4"),
        ({"quantization": {"quant_algo": "W8A16"}}, "quantization.quant_algo is W8A16, asked for FP8"),
    ],
)
def test_an_exporter_that_wrote_something_else_is_caught(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        complete(**changes)
    assert caught.value.reason == "CheckpointMismatch"
    assert words in caught.value.message


def test_the_group_size_is_always_written() -> None:
    assert quantization_of("W4A16_AWQ", group_size=64)["group_size"] == 64
    assert quantization_of("W4A16_AWQ")["group_size"] == 128
    assert quantization_of("NVFP4", "FP8") == {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16}
    assert quantization_of("") == {"quant_algo": None, "kv_cache_quant_algo": None}


def test_experts_share_the_gpus_of_tensor_parallelism() -> None:
    found = mapping_of(Parallelism(tensor=8, expert=4))
    assert (found["world_size"], found["moe_ep_size"], found["moe_tp_size"]) == (8, 4, 2)
