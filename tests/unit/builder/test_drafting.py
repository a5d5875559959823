"""What must hold of a model that drafts, and what of it is put beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format
from enginewright_api.recipe import Recipe
from enginewright_api.source import Source
from enginewright_builder.drafting import check_draft, place_draft
from enginewright_builder.places import Places
from enginewright_builder.sources.checkpoint import Checkpoint, inspect
from enginewright_builder.sources.field import DRAFT as FIELD
from enginewright_builder.stages.fetch import Fetch

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "vocab_size": 8,
    "max_position_embeddings": 128, "eos_token_id": 1,
}  # fmt: skip
DRAFT = {"objectStore": {"uri": "s3://b/draft"}}
WORDS = ("a", "b", "c", "d")


def checkpoint(folder: Path, *, words: tuple[str, ...] = WORDS, **config: Any) -> Checkpoint:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    numbered = {word: number for number, word in enumerate(words)}
    Tokenizer(models.WordLevel(numbered, unk_token=words[0])).save(str(folder / "tokenizer.json"))
    save_file({"w": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    return inspect(folder)


def recipe(**changes: Any) -> Recipe:
    drafting = {"method": "DraftModel", "draft": {"source": DRAFT}}
    return Recipe.model_validate(
        {"source": {"objectStore": {"uri": "s3://b/x"}}, "task": "TextGeneration", "backend": "OpenVINO", "limits": {},
         "speculativeDecoding": drafting, **changes}
    )  # fmt: skip


def test_a_draft_with_the_models_tokens_fits(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", vocab_size=16)
    check_draft(checkpoint(tmp_path / "draft", hidden_size=4), model, recipe(), 128)


@pytest.mark.parametrize(
    ("differs", "context", "reason", "words"),
    [
        ({"words": (*WORDS, "e")}, 128, "InvalidRecipe", r"vocabulary \(5 tokens\) is not the model's \(4 tokens\)"),
        ({"words": ("b", "a", "c", "d")}, 128, "InvalidRecipe", "must share one tokenizer"),
        ({"vocab_size": 9}, 128, "InvalidRecipe", "output has 9 tokens and the model's 8"),
        ({}, 129, "LimitExceeded", "128 positions do not hold the 129 tokens"),
    ],
)
def test_a_draft_that_does_not_fit_is_refused(
    tmp_path: Path, differs: dict[str, Any], context: int, reason: str, words: str
) -> None:
    draft = checkpoint(tmp_path / "draft", **differs)
    with pytest.raises(DeterministicError, match=rf"{FIELD}: .*{words}") as caught:
        check_draft(draft, checkpoint(tmp_path / "model"), recipe(), context)
    assert caught.value.reason == reason


def test_a_draft_without_a_language_head_is_refused_by_its_field(tmp_path: Path) -> None:
    encoder = checkpoint(tmp_path / "draft", architectures=["LlamaModel"])
    with pytest.raises(DeterministicError, match=rf"{FIELD}: config.json: .*has no language head"):
        check_draft(encoder, checkpoint(tmp_path / "model"), recipe(), 128)


def test_nothing_but_rounding_is_done_to_a_draft() -> None:
    wanted = recipe(
        pruning={"granularity": "Neurons", "sparsity": 0.5},
        quantization={"format": "INT4", "method": "AWQ", "kvCacheFormat": "INT8"},
    ).for_draft()
    assert wanted.source == Source.model_validate(DRAFT)
    assert (wanted.pruning, wanted.speculative_decoding) == (None, None)
    assert wanted.quantization is not None
    assert (wanted.quantization.format, wanted.quantization.kv_cache_format.value) == (Format.INT8, "INT8")


@pytest.mark.parametrize(
    ("names", "reason"), [((), "SourceNotFound"), (("pytorch_model.bin",), "UnsafeWeights")], ids=["missing", "pickle"]
)
def test_a_source_that_cannot_be_fetched_is_named_by_its_field(
    tmp_path: Path, names: tuple[str, ...], reason: str
) -> None:
    folder = tmp_path / "draft"
    for name in names:
        folder.mkdir()
        (folder / name).write_bytes(b"")
    source = Source.model_validate({"objectStore": {"uri": folder.as_uri()}})
    fetch = Fetch(source, Places(tmp_path, tmp_path, tmp_path, tmp_path), name="fetch-draft", field=FIELD)
    with pytest.raises(DeterministicError, match=rf"^{reason}: {FIELD}\.objectStore\.uri"):
        fetch.key()


def test_the_tokenizer_beside_the_draft_is_the_models(tmp_path: Path) -> None:
    """The runtime compares special tokens, and a base model's are not those of its chat version."""
    for name in ("model", "draft"):
        (tmp_path / name).mkdir()
        for file in ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "config.json"):
            (tmp_path / name / file).write_text(name)
    engine = tmp_path / "engine"
    engine.mkdir()
    place_draft(tmp_path / "draft", tmp_path / "model", engine)
    found = {path.name: path.read_text() for path in (engine / "draft").iterdir()}
    assert found == {
        "openvino_model.xml": "draft", "openvino_model.bin": "draft", "openvino_tokenizer.xml": "model",
        "config.json": "model",
    }  # fmt: skip
