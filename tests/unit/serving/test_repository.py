"""Staging: what lies in the repository, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Batching
from enginewright_serving.repository import read_batching, stage
from tests.unit.serving.test_model_config import engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "engine-folder"
    (made / "engine").mkdir(parents=True)
    (made / "tokenizer").mkdir()
    (made / "engine" / "openvino.xml").touch()
    (made / "tokenizer" / "tokenizer.json").touch()
    (made / "engine.json").write_text(json.dumps(engine().wire()))
    return made


def test_staging_links_the_engine_and_may_be_repeated(folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        stage(folder, tmp_path / "models", "minilm", Batching())
    model = tmp_path / "models" / "minilm"
    assert (model / "1" / "engine").resolve() == folder
    assert (model / "config.pbtxt").read_text().startswith('name: "minilm"')
    assert "enginewright_serving.triton.encoder" in (model / "1" / "model.py").read_text()


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a..b", "x" * 254, "a b"])
def test_names_that_would_leave_the_repository_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DeterministicError, match="model name"):
        stage(folder, tmp_path / "models", name, Batching())


@pytest.mark.parametrize(
    ("missing", "says"),
    [("engine.json", "engine.json"), ("engine/openvino.xml", "entry"), ("tokenizer/tokenizer.json", "tokenizer.json")],
)
def test_what_is_missing_is_named(folder: Path, tmp_path: Path, missing: str, says: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(DeterministicError, match=says):
        stage(folder, tmp_path / "models", "minilm", Batching())


@pytest.mark.parametrize("entry", ["../secret", "/etc/passwd"])
def test_an_entry_outside_the_engine_is_refused(folder: Path, tmp_path: Path, entry: str) -> None:
    (folder / "secret").touch()
    (folder / "engine.json").write_text(json.dumps(engine(entry=entry).wire()))
    with pytest.raises(DeterministicError, match="entry"):
        stage(folder, tmp_path / "models", "minilm", Batching())


def test_a_batching_file_is_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "batching.json"
    assert read_batching(None) == Batching()
    file.write_text('{"maxBatchSize": 4}')
    assert read_batching(file).max_batch_size == 4
    file.write_text('{"maxBatchsize": 4}')
    with pytest.raises(DeterministicError, match="maxBatchsize"):
        read_batching(file)
    with pytest.raises(DeterministicError, match=r"absent\.json"):
        read_batching(tmp_path / "absent.json")
