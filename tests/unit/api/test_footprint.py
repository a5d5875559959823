"""Memory and time estimates follow from sizes in config.json."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.build_time import build_seconds, total_seconds
from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.footprint import check_will_fit, footprint
from enginewright_api.geometry import Geometry
from enginewright_api.recipe import AcceleratorFacts, Recipe

MINILM = {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6,
    "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512,
}  # fmt: skip
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip
DISTILBERT = {
    "architectures": ["DistilBertModel"], "model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12,
    "hidden_dim": 3072, "vocab_size": 30522, "max_position_embeddings": 512,
}  # fmt: skip
SOURCE = {"package": {"name": "p", "version": "1"}}


def recipe(task: str = "Embedding", backend: str = "OpenVINO", **changes: Any) -> Recipe:
    return Recipe.model_validate({"source": SOURCE, "task": task, "backend": backend, "limits": {}, **changes})


def generating(**changes: Any) -> Recipe:
    limits = {"maxBatchSize": 16, "maxInputTokens": 1024, "maxOutputTokens": 1024}
    return recipe("TextGeneration", **{"limits": limits, **changes})


@pytest.mark.parametrize(
    ("config", "millions"), [(MINILM, 22.7), (SMOLLM2, 134.5), (LLAMA_70B, 70_554), (DISTILBERT, 66.4)]
)
def test_parameters_are_those_of_the_published_models(config: dict[str, Any], millions: float) -> None:
    assert Geometry.of(config).parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_scales_and_zero_points_of_small_groups_count() -> None:
    geometry = Geometry.of(SMOLLM2)
    four_bits = {"format": "INT4", "granularity": "PerGroup"}
    fine, coarse = (
        footprint(geometry, generating(quantization={**four_bits, "groupSize": size})).weights_bytes
        for size in (32, 128)
    )
    # Four bytes a group, once in the file and once packed for the kernels.
    assert fine - coarse == pytest.approx(2 * geometry.layer_weights * 4 * (1 / 32 - 1 / 128), abs=2)


def test_onnx_runtime_quantises_products_alone_and_its_arena_is_larger() -> None:
    geometry = Geometry.of(MINILM)
    products = footprint(geometry, recipe(backend="ONNXRuntime", quantization={"format": "INT8", "method": "Dynamic"}))
    weights = footprint(geometry, recipe(backend="ONNXRuntime", quantization={"format": "INT8", "method": "GPTQ"}))
    assert products.weights_bytes == geometry.layer_weights + 4 * geometry.embedding_weights
    assert weights.weights_bytes == geometry.layer_weights + geometry.embedding_weights
    assert products.activation_bytes == 2.5 * footprint(geometry, recipe(backend="Torch")).activation_bytes


def test_grouped_queries_shrink_the_cache() -> None:
    geometry = Geometry.of(LLAMA_70B)
    # Two of 80 layers × 8 groups × 128 elements; with 64 heads of keys and values it would be eight times that.
    assert geometry.key_value_elements_per_token == 2 * 80 * 8 * 128
    sixteen_bits = footprint(geometry, generating(backend="TensorRTLLM"))
    eight_bits = footprint(
        geometry, generating(backend="TensorRTLLM", quantization={"format": "FP8", "kvCacheFormat": "FP8"})
    )
    assert sixteen_bits.kv_cache_bytes == 16 * 2048 * geometry.key_value_elements_per_token * 2
    assert eight_bits.kv_cache_bytes * 2 == sixteen_bits.kv_cache_bytes


def test_an_encoder_has_no_key_value_cache() -> None:
    assert footprint(Geometry.of(MINILM), recipe()).kv_cache_bytes == 0


def test_an_encoder_packs_its_matrices_for_single_texts_and_for_batches() -> None:
    geometry = Geometry.of(MINILM)
    one, many = (footprint(geometry, recipe(limits={"maxBatchSize": size})).weights_bytes for size in (1, 32))
    assert many - one == 4 * geometry.layer_weights
    assert one == 2 * 4 * geometry.layer_weights + 4 * geometry.embedding_weights
    large = Geometry.of(MINILM | {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096})
    one, many = (footprint(large, recipe(limits={"maxBatchSize": size})).weights_bytes for size in (1, 32))
    assert one == many, "a gigabyte is not packed twice"


def test_weights_shrink_with_the_format() -> None:
    geometry = Geometry.of(SMOLLM2)
    sizes = [
        footprint(geometry, generating(quantization=quantization)).weights_bytes
        for quantization in (None, {"format": "FP16"}, {"format": "INT8"}, {"format": "INT4"})
    ]
    assert sizes == sorted(sizes, reverse=True)
    layers, tables = geometry.layer_weights, geometry.embedding_weights
    # The file is mapped, matrices are packed once more, tables are held in float32 (once, where the file has it so).
    assert sizes[0] == 2 * 4 * layers + 4 * tables
    assert sizes[2] == 2 * layers + (1 + 4) * tables
    # Half a byte and a scale for the layers; the table of tokens keeps its eight bits in the file.
    assert 2 * 0.5 * layers + 5 * tables < sizes[3] < 2 * 0.6 * layers + 5 * tables


def test_where_the_runtime_maps_nothing_weights_are_the_file() -> None:
    geometry = Geometry.of(SMOLLM2)
    found = footprint(geometry, generating(backend="TensorRTLLM", quantization={"format": "FP8"}))
    assert found.weights_bytes == geometry.parameters


def test_the_cache_of_openvino_has_scales_blocks_and_room_for_prefixes() -> None:
    geometry, limits = Geometry.of(SMOLLM2), {"maxBatchSize": 4, "maxInputTokens": 100, "maxOutputTokens": 1}
    sizes = {
        kind: footprint(geometry, generating(limits=limits, quantization={"format": "INT8", "kvCacheFormat": kind}))
        for kind in ("Auto", "INT8", "FP16")
    }
    # 101 tokens fill four blocks of 32; four requests, and a quarter more.
    tokens = 4 * 32 * 4 * 1.25
    each = 2 * 30 * 3 * 64
    assert sizes["INT8"].kv_cache_bytes == tokens * each * (1 + 8 / 64)
    assert sizes["FP16"].kv_cache_bytes == tokens * each * 2 == sizes["Auto"].kv_cache_bytes
    whole = footprint(geometry, generating(limits=limits))
    assert whole.kv_cache_bytes == tokens * each * 4, "the cache of an engine that is not quantised is not either"


def test_a_draft_has_weights_a_cache_and_activations_of_its_own() -> None:
    geometry = Geometry.of(SMOLLM2)
    small = Geometry.of(SMOLLM2 | {"num_hidden_layers": 6})
    packed = {"format": "INT4", "method": "MinMax", "kvCacheFormat": "FP16"}
    drafting = {"method": "DraftModel", "draft": {"source": SOURCE}}
    wanted = generating(quantization=packed, speculativeDecoding=drafting)
    alone, whole = footprint(geometry, wanted), footprint(geometry, wanted, small)
    served_alone = footprint(
        small, generating(quantization={"format": "INT8", "method": "Dynamic", "kvCacheFormat": "FP16"})
    )
    assert whole.weights_bytes - alone.weights_bytes == served_alone.weights_bytes, "8 bits, whatever the model has"
    assert (whole.kv_cache_bytes - alone.kv_cache_bytes) * 5 == alone.kv_cache_bytes, "as many blocks, 6 of 30 layers"
    assert whole.activation_bytes > alone.activation_bytes + served_alone.activation_bytes, "prompts are read whole"
    assert whole.runtime_bytes == alone.runtime_bytes
    exact = generating(speculativeDecoding=drafting)
    model, both = footprint(geometry, exact), footprint(geometry, exact, small)
    assert (both.kv_cache_bytes - model.kv_cache_bytes) * 5 == model.kv_cache_bytes, "float32 beside a float32 model"


@pytest.mark.parametrize(
    ("blocks", "at_most"),
    [
        ({"distillation": {"student": {"layers": 3}}}, 0.8),
        ({"pruning": {"granularity": "HeadsAndNeurons", "sparsity": 0.5}}, 0.8),
        ({"pruning": {"granularity": "Layers", "sparsity": 0.5}}, 0.8),
        ({"pruning": {"granularity": "Weights", "sparsity": 0.5}}, 1.0),
    ],
)
def test_only_what_shrinks_tensors_saves_memory(blocks: dict[str, Any], at_most: float) -> None:
    geometry = Geometry.of(MINILM)
    share = footprint(geometry, recipe(**blocks)).weights_bytes / footprint(geometry, recipe()).weights_bytes
    assert share <= at_most
    assert (share == 1.0) == (at_most == 1.0)


def test_shards_divide_the_weights() -> None:
    geometry = Geometry.of(LLAMA_70B)
    whole = footprint(geometry, generating(backend="TensorRTLLM", quantization={"format": "FP8"}))
    quarter = footprint(
        geometry,
        generating(backend="TensorRTLLM", quantization={"format": "FP8"}, parallelism={"tensor": 2, "pipeline": 2}),
    )
    assert quarter.weights_bytes == pytest.approx(whole.weights_bytes / 4)


def test_what_will_not_fit_is_said_with_both_figures() -> None:
    found = footprint(Geometry.of(LLAMA_70B), generating(backend="TensorRTLLM", quantization={"format": "FP8"}))
    small = AcceleratorFacts(accelerator_class="nvidia-l4", vendor="nvidia", memory_gib=24)
    with pytest.raises(DeterministicError, match=r"class nvidia-l4 has 24 GiB; lower engine\.limits") as caught:
        check_will_fit(found, small)
    assert caught.value.reason == "WillNotFit"
    assert "weights 6" in caught.value.message
    check_will_fit(found, AcceleratorFacts(accelerator_class="nvidia-b200", vendor="nvidia", memory_gib=180))
    check_will_fit(found, AcceleratorFacts(accelerator_class="unknown", vendor="nvidia"))


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_config_without_a_size_is_named(field: str) -> None:
    config = {name: value for name, value in MINILM.items() if name != field}
    with pytest.raises(DeterministicError, match=field):
        Geometry.of(config)


def test_training_is_most_of_a_build_that_trains() -> None:
    evidence = EvidenceRequest.model_validate(
        {"dataset": {"builtin": {"name": "news-en"}}, "metric": "CosineSimilarity", "maxDrop": 0.01, "confidence": 0.95,
         "samples": 512}
    )  # fmt: skip

    def seconds(**changes: Any) -> dict[str, float]:
        return build_seconds(
            Geometry.of(MINILM), recipe(**changes), evidence, architecture="x86_64-avx512-vnni", cores=2
        )

    plain, distilled = seconds(), seconds(distillation={"student": {"layers": 3}, "maxSteps": 1000})
    assert set(distilled) - set(plain) == {"distil"}
    assert distilled["distil"] > sum(plain.values())
    exiting = seconds(task="Classification", earlyExit={"confidence": 0.9})
    assert set(exiting) - set(plain) == {"exit"}
    assert 10 < exiting["exit"] < 30
    generates = {"task": "TextGeneration"}
    drafting = build_seconds(
        Geometry.of(SMOLLM2), recipe(**generates), evidence, architecture="", cores=2, draft=Geometry.of(MINILM)
    )
    without = build_seconds(Geometry.of(SMOLLM2), recipe(**generates), evidence, architecture="", cores=2)
    assert set(drafting) - set(without) == {"draft"}
    assert sum(seconds(quantization={"format": "INT8", "method": "SmoothQuant"}).values()) > sum(plain.values())


BERT_BASE = MINILM | {
    "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072,
}  # fmt: skip
INT8 = {"format": "INT8", "method": "SmoothQuant", "calibration": {"samples": 128}}
HALF_DONE = {"granularity": "HeadsAndNeurons", "criterion": "Gradient", "sparsity": 0.25}


@pytest.mark.parametrize(
    ("config", "changes", "samples", "took"),
    [
        (MINILM, {"task": "Classification", "quantization": INT8}, 2000, 61.0),
        (MINILM, {"task": "Classification", "quantization": INT8,
                  "pruning": HALF_DONE | {"recoverySteps": 600}}, 2000, 318.4),
        (BERT_BASE, {"task": "Classification", "quantization": INT8, "pruning": HALF_DONE}, 32, 109.0),
        (SMOLLM2, {"task": "TextGeneration", "quantization": {"format": "INT4", "method": "MinMax"}}, 128, 148.0),
    ],
    ids=["minilm", "minilm-pruned", "bert-base-pruned", "smollm2"],
)  # fmt: skip
def test_builds_on_two_quiet_cores_took_about_as_long_as_estimated(
    config: dict[str, Any], changes: dict[str, Any], samples: int, took: float
) -> None:
    """Times of builds with an empty cache, or nearly, on two cores with AMX (docs/preflight.md)."""
    evidence = EvidenceRequest.model_validate(
        {"dataset": {"builtin": {"name": "reviews-en"}}, "metric": "Accuracy", "maxDrop": 0.01, "confidence": 0.95,
         "samples": samples}
    )  # fmt: skip
    stages = build_seconds(Geometry.of(config), recipe(**changes), evidence, architecture="x86_64-amx", cores=2)
    assert total_seconds(stages) == pytest.approx(took, rel=0.2)
