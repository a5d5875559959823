"""Encoders that transformers computes with spelt-out attention only: engines of every length answer as they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import Verdict
from enginewright_api.optimization import Distillation, LowRank, Pruning, Quantization
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.compression.distill import distill
from enginewright_builder.compression.low_rank import factorize
from enginewright_builder.compression.prune import prune
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import quiet
from enginewright_builder.datasets.rows import Row
from enginewright_builder.description import describe
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from tests.builder.building import ORT_DYNAMIC, Builder, request
from tests.builder.tiny import save_tiny

pytestmark = pytest.mark.timeout(300)
OPENVINO = backend_of(Backend.OPENVINO)
SHAPE = {
    "vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 260,
}  # fmt: skip
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": 32, "type_vocab_size": 0}
KINDS: dict[str, dict[str, Any]] = {
    "MPNet": {},
    "Deberta": DEBERTA,
    "DebertaV2": {**DEBERTA, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "BigBird": {"attention_type": "block_sparse", "block_size": 16, "num_random_blocks": 2},
    "ConvBert": {"embedding_size": 32},
    "RoFormer": {},
    "MegatronBert": {},
    "SqueezeBert": {"embedding_size": 32},
    "RemBert": {"input_embedding_size": 16, "output_embedding_size": 16},
}
LENGTHS = (2, 5, 17, 64, 128)
"""Graphs are made with 16 tokens; what would be baked in then would be wrong for these."""


def saved(kind: str, folder: Path, *, head: str = "ForSequenceClassification") -> Path:
    """A model with weights large enough that positions, masks and attention change its answers."""
    save_tiny("bert", folder)  # its tokenizer serves them all
    config = getattr(transformers, f"{kind}Config")(**SHAPE, **KINDS[kind])
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}{head}")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    model.save_pretrained(folder)
    return folder


def described(folder: Path, backend: Backend, *, tokens: int = 128) -> EngineDescription:
    recipe = Recipe.model_validate(
        {
            "source": {"objectStore": {"uri": "s3://b/x"}},
            "task": "Classification",
            "backend": backend.value,
            "limits": {"maxInputTokens": tokens},
        }
    )
    return describe(inspect(folder), recipe, backend)


def fed(description: EngineDescription, tokens: int) -> dict[str, Any]:
    ids = np.random.default_rng(tokens).integers(5, 90, (3, tokens))
    mask = np.ones_like(ids)
    mask[1, tokens // 2 + 1 :] = 0
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: known[name] for name in description.inputs}


def eager(folder: Path, description: EngineDescription, tokens: int) -> Any:
    model = load_model(folder, description.task)
    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in fed(description, tokens).items()}).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", [Backend.OPENVINO, Backend.ONNX_RUNTIME])
def test_answers_are_eager_s_at_every_length(kind: str, backend: Backend, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "whole")
    description = described(folder, backend)
    made = backend_of(backend)
    made.export(folder, description, tmp_path)
    answers = made.answers(tmp_path, description, [fed(description, tokens) for tokens in LENGTHS], 1)
    for tokens, answered in zip(LENGTHS, answers, strict=True):
        wanted = eager(folder, description, tokens)
        assert wanted.std() > 0.1, "or there is nothing to tell apart"
        np.testing.assert_allclose(answered, wanted, atol=2e-4, err_msg=f"{tokens} tokens")


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2"])
def test_torch_engines_follow_the_length_too(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "whole")
    description = described(folder, Backend.TORCH)
    backend_of(Backend.TORCH).export(folder, description, tmp_path)
    program = torch.export.load(tmp_path / "exported.pt2").module()
    for tokens in LENGTHS:
        with torch.no_grad():
            answered = program(*(torch.from_numpy(array) for array in fed(description, tokens).values()))
        np.testing.assert_allclose(answered, eager(folder, description, tokens), atol=1e-4)


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2"])
def test_int8_engines_hold_a_byte_a_weight_and_answer_nearly_so(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path / "whole")
    description = described(folder, Backend.OPENVINO)
    packed = tmp_path / "packed"
    packed.mkdir()
    OPENVINO.export(folder, description, tmp_path)
    settings = Quantization.model_validate({"format": "INT8", "method": "MinMax", "calibration": {"samples": 8}})
    OPENVINO.quantize(tmp_path, description, settings, [fed(description, tokens) for tokens in LENGTHS], packed)
    whole, small = ((place / "openvino.bin").stat().st_size for place in (tmp_path, packed))
    assert small < 0.7 * whole
    (answered,) = OPENVINO.answers(packed, description, [fed(description, 64)], 1)
    wanted = eager(folder, description, 64).numpy()
    assert np.corrcoef(answered.ravel(), wanted.ravel())[0, 1] > 0.9


def test_deberta_is_built_judged_and_timed_through_the_server(tmp_path: Path) -> None:
    folder = saved("DebertaV2", tmp_path / "whole", head="Model")
    builder = Builder(tmp_path / "machine", tmp_path / "store")
    outcome, _, code = builder.run(
        request("ONNXRuntime", ORT_DYNAMIC, source={"objectStore": {"uri": folder.as_uri()}})
    )
    assert (code, outcome.failure) == (0, None)
    assert outcome.evidence is not None
    assert outcome.evidence.quality.verdict is Verdict.PASSED
    assert outcome.evidence.quality.optimized > 0.98, "cosine to the model itself"


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2"])
@pytest.mark.parametrize("changed", ["neurons", "layers", "student", "low rank"])
def test_they_are_made_smaller_and_their_engines_answer_like_what_is_left(
    kind: str, changed: str, tmp_path: Path
) -> None:
    whole, left = saved(kind, tmp_path / "whole"), tmp_path / "left"
    description = described(whole, Backend.OPENVINO)
    task, rows = description.task, [Row(" ".join(f"w{word}" for word in range(at, at + 20))) for at in range(2, 70)]
    if changed == "neurons":
        half = {"granularity": "Neurons", "sparsity": 0.5, "criterion": "Reconstruction"}
        prune(whole, task, Pruning.model_validate(half), rows, left, quiet)
    elif changed == "layers":
        prune(whole, task, Pruning.model_validate({"granularity": "Layers", "sparsity": 0.5}), rows, left, quiet)
    elif changed == "student":
        student = {"student": {"layers": 1}, "objectives": ["Logits", "HiddenStates"], "maxSteps": 2}
        distill(whole, [whole], task, Distillation.model_validate(student), rows, left, quiet)
    else:
        factorize(whole, task, LowRank.model_validate({"rank": 4}), left, quiet)
    sizes = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in (whole, left)]
    assert sizes[1] < 0.9 * sizes[0]
    OPENVINO.export(left, description, tmp_path)
    (answered,) = OPENVINO.answers(tmp_path, description, [fed(description, 40)], 1)
    np.testing.assert_allclose(answered, eager(left, description, 40), atol=2e-4)


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2"])
def test_their_heads_share_positions_and_stay(kind: str, tmp_path: Path) -> None:
    whole = saved(kind, tmp_path / "whole")
    heads = Pruning.model_validate({"granularity": "HeadsAndNeurons", "sparsity": 0.5})
    with pytest.raises(DeterministicError, match="none can go alone; ask for Neurons or Layers"):
        prune(whole, described(whole, Backend.OPENVINO).task, heads, [], tmp_path / "left", quiet)


def test_bigbird_is_refused_where_its_blocks_would_matter(tmp_path: Path) -> None:
    folder = saved("BigBird", tmp_path)
    described(folder, Backend.OPENVINO, tokens=144)
    with pytest.raises(DeterministicError, match=r"145 is more than the 144 tokens .* give at most 144") as caught:
        described(folder, Backend.OPENVINO, tokens=145)
    assert caught.value.reason == "UnsupportedArchitecture"


def test_longformer_is_refused_with_the_reason(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    config = transformers.LongformerConfig(**SHAPE, attention_window=8)
    transformers.LongformerForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(DeterministicError, match="cuts each text into pieces by its length") as caught:
        described(tmp_path, Backend.OPENVINO)
    assert caught.value.reason == "UnsupportedArchitecture"
