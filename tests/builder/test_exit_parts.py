"""First layers, head and the rest of each architecture: together they are the model, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from enginewright_api.engine_description import ExitPart, ExitPoint
from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Task
from enginewright_api.serving_spec import EarlyExit
from enginewright_builder.compression.early_exit import add_exit
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import quiet
from enginewright_builder.datasets.rows import Row
from enginewright_builder.toolchain.exit_parts import part_of
from tests.builder.tiny import CONFIGS, SIZES, ids, save_tiny

CLASSIFIERS: dict[str, Any] = {
    "bert": ("BertForSequenceClassification", lambda: transformers.BertConfig(**SIZES)),
    "roberta": ("RobertaForSequenceClassification", lambda: transformers.RobertaConfig(**SIZES, pad_token_id=1)),
    "electra": ("ElectraForSequenceClassification", lambda: transformers.ElectraConfig(**SIZES, embedding_size=16)),
    "distilbert": CONFIGS["distilbert"],
    "llama": ("LlamaForSequenceClassification", lambda: transformers.LlamaConfig(**SIZES, pad_token_id=0)),
}
ROWS = [Row(" ".join(f"w{2 + (number * place) % 97}" for place in range(1, 13))) for number in range(1, 193)]


def saved(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(CONFIGS, name, CLASSIFIERS[name])
    return save_tiny(name, folder)


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "distilbert"])
def test_first_and_rest_are_the_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved(name, tmp_path / "model", monkeypatch)
    told = add_exit(checkpoint, Task.CLASSIFICATION, EarlyExit(confidence=0.3), ROWS, tmp_path / "exit", quiet)
    tokens = ids()
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    whole = load_model(checkpoint, Task.CLASSIFICATION)
    parts = {
        part: part_of(
            load_model(tmp_path / "exit", Task.CLASSIFICATION),
            tmp_path / "exit",
            ExitPoint(layer=told["exitLayer"], width=32, threshold=0.5, part=part),  # type: ignore[arg-type]
        )
        for part in ExitPart
    }
    with torch.no_grad():
        expected = whole(input_ids=tokens, attention_mask=mask).logits
        states = parts[ExitPart.FIRST](tokens, mask)
        found = parts[ExitPart.REST](states, mask)
        head = parts[ExitPart.HEAD](states, mask)
    assert torch.allclose(found, expected, atol=1e-5)
    assert head.shape == expected.shape


def test_a_model_with_a_norm_after_its_layers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved("llama", tmp_path / "model", monkeypatch)
    with pytest.raises(DeterministicError, match="changes states after its last layer") as refused:
        add_exit(checkpoint, Task.CLASSIFICATION, EarlyExit(confidence=0.3), ROWS, tmp_path / "exit", quiet)
    assert refused.value.reason == "UnsupportedArchitecture"
