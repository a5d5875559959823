"""Data sets in the Hugging Face layout: on a volume, in a store, on a hub; the right files for the right purpose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.source import Dataset
from enginewright_builder.datasets.draw import draw
from enginewright_builder.datasets.splits import split_files
from enginewright_builder.places import Places
from tests.unit.builder.hub_server import COMMIT, Hub, running_hub

CARD = """---
license: mit
configs:
- config_name: plain
  default: true
  data_files:
  - split: train
    path: data/a-*
  - split: odd
    path: [data/b-0.jsonl, data/b-1.jsonl]
- config_name: other
  data_files: other/*.jsonl
---
# A set
"""
PLAIN = ["README.md", "data/a-0.jsonl", "data/a-1.jsonl", "data/b-0.jsonl", "data/b-1.jsonl", "other/x.jsonl"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path / "work", tmp_path / "datasets", tmp_path / "volumes", tmp_path / "tokens")
    found.scratch.mkdir(parents=True)
    return found


def jsonl(*texts: str) -> bytes:
    return "\n".join(json.dumps({"text": text}) for text in texts).encode()


def parquet(file: Path, *texts: str) -> bytes:
    """A real Parquet file with a class label and a list beside the text, as hubs have them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = ", ".join(f"('{text}', {number % 2}, [1, 2])" for number, text in enumerate(texts))
    target = str(file)
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"COPY (SELECT * FROM (VALUES {values}) t(text, label, tokens)) TO '{target}'")  # noqa: S608 - our own
    return file.read_bytes()


def texts_of(given: dict[str, Any], places: Places, purpose: Any = "evaluation") -> set[str]:
    return {row.text for row in draw(Dataset.model_validate(given), purpose, places).rows}


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"],
         "train", ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        (["train.jsonl", "dev.jsonl", "README.md", "dataset_info.json"], "validation", ["dev.jsonl"]),
        (["train/x.csv", "evaluation/y.csv"], "test", ["evaluation/y.csv"]),
        (["rows.jsonl", "LICENSE.txt"], "train", ["rows.jsonl"]),
        (["my_test_file.csv", "my_train_file.csv"], "test", ["my_test_file.csv"]),
        (["data/extra-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"],
         "extra", ["data/extra-00000-of-00001.parquet"]),
        (["cola/train.csv", "sst2/train.csv", "sst2/dev.csv"], "sst2/train", ["sst2/train.csv"]),
        (["contest/train.txt"], "train", ["contest/train.txt"]),
    ],
)  # fmt: skip
def test_files_of_a_split(names: list[str], split: str, expected: list[str]) -> None:
    assert split_files(names, split, name="set") == expected


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", ["data/a-0.jsonl", "data/a-1.jsonl"]),
        ("odd", ["data/b-0.jsonl", "data/b-1.jsonl"]),
        ("plain/odd", ["data/b-0.jsonl", "data/b-1.jsonl"]),
        ("other/train", ["other/x.jsonl"]),
    ],
)
def test_the_card_says_which_files_a_split_has(split: str, expected: list[str]) -> None:
    assert split_files(PLAIN, split, card=CARD, name="set") == expected


@pytest.mark.parametrize(
    ("names", "split", "card", "words"),
    [
        (["train.csv"], "test", "", ["'test'", "train"]),
        (["a.bin"], "train", "", [".parquet", ".jsonl"]),
        (["train/data-00000-of-00001.arrow", "dataset_dict.json"], "train", "", ["save_to_disk", "to_parquet"]),
        (["cola/train.csv", "sst2/train.csv"], "train", "", ["cola, sst2", "<configuration>/<split>"]),
        (PLAIN, "nothing/train", CARD, ["other, plain"]),
        (PLAIN, "test", CARD, ["'test'", "odd, train"]),
        (PLAIN, "train", "---\n[\n---\n", ["README.md", "YAML"]),
    ],
)
def test_splits_that_are_not_there(names: list[str], split: str, card: str, words: list[str]) -> None:
    with pytest.raises(DeterministicError) as caught:
        split_files(names, split, card=card, name="the-set")
    assert caught.value.reason == "InvalidDataset"
    for word in ["the-set", *words]:
        assert word in caught.value.message


def test_a_folder_gives_its_splits_to_their_purposes(places: Places) -> None:
    folder = places.volumes / "claim" / "set"
    parquet(folder / "data" / "train-00000-of-00001.parquet", "learn", "learn more")
    parquet(folder / "data" / "validation-00000-of-00001.parquet", "judge")
    (folder / "dataset_info.json").write_text("{}")
    on_volume = {"persistentVolumeClaim": {"claimName": "claim", "path": "set"}}
    in_store = {"objectStore": {"uri": folder.as_uri()}}
    for given in (on_volume, in_store):
        assert texts_of(given, places, "calibration") == {"learn", "learn more"}
        assert texts_of(given, places, "evaluation") == {"judge"}


def test_parquet_columns_are_read_by_name(places: Places, tmp_path: Path) -> None:
    parquet(tmp_path / "rows.parquet", "one", "two")
    uri = {"objectStore": {"uri": (tmp_path / "rows.parquet").as_uri()}}
    rows = draw(Dataset.model_validate(uri | {"columns": {"label": "label"}}), "evaluation", places).rows
    assert {(row.text, row.label) for row in rows} == {("one", "0"), ("two", "1")}
    with pytest.raises(DeterministicError, match=r"'body'.*'label', 'text', 'tokens'"):
        draw(Dataset.model_validate(uri | {"columns": {"text": "body"}}), "evaluation", places)
    with pytest.raises(DeterministicError, match=r"'tokens'.*no text"):
        draw(Dataset.model_validate(uri | {"columns": {"text": "tokens"}}), "evaluation", places)


def test_a_cut_parquet_file_is_refused_by_name(places: Places, tmp_path: Path) -> None:
    content = parquet(tmp_path / "rows.parquet", "one", "two")
    (tmp_path / "rows.parquet").write_bytes(content[:-20])
    with pytest.raises(DeterministicError, match=r"rows.parquet: is not readable Parquet") as caught:
        texts_of({"objectStore": {"uri": (tmp_path / "rows.parquet").as_uri()}}, places)
    assert "\n" not in caught.value.message


def test_a_link_out_of_a_folder_of_rows_is_refused(places: Places, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("text\nsecret\n")
    folder = places.volumes / "claim"
    folder.mkdir(parents=True)
    (folder / "train.csv").symlink_to(tmp_path / "secret.csv")
    for path in ("", "train.csv"):
        with pytest.raises(DeterministicError) as caught:
            texts_of({"persistentVolumeClaim": {"claimName": "claim", "path": path}}, places)
        assert "secret" not in caught.value.message
        assert "out of" in caught.value.message


def test_one_text_with_several_labels_counts_once_whatever_the_order(places: Places, tmp_path: Path) -> None:
    lines = ['{"text": "a", "l": "x"}', '{"text": "a", "l": "y"}']
    given = Dataset.model_validate({"objectStore": {"uri": (tmp_path / "r.jsonl").as_uri()}, "columns": {"label": "l"}})
    drawn = []
    for order in (lines, lines[::-1]):
        (tmp_path / "r.jsonl").write_text("\n".join(order))
        drawn.append(draw(given, "evaluation", places))
    assert drawn[0].rows == drawn[1].rows
    assert [row.label for row in drawn[0].rows] == ["x"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    files = {
        "README.md": CARD.encode(),
        "data/a-0.jsonl": jsonl("one"),
        "data/a-1.jsonl": jsonl("two", "three"),
        "data/b-0.jsonl": jsonl("four"),
        "data/b-1.jsonl": jsonl("five"),
        "other/x.jsonl": jsonl("six"),
        "script.py": b"raise SystemExit",
    }
    with running_hub(Hub(files, kind="datasets"), monkeypatch) as served:
        yield served


def on_hub(**changes: Any) -> dict[str, Any]:
    return {"huggingFace": {"repository": "org/name", "revision": COMMIT, "split": "train"} | changes}


def test_a_split_is_fetched_from_the_hub_and_nothing_else(hub: Hub, places: Places) -> None:
    assert texts_of(on_hub(), places) == {"one", "two", "three"}
    assert texts_of(on_hub(split="odd"), places) == {"four", "five"}
    assert texts_of(on_hub(split="other/train"), places) == {"six"}
    hub.asked.clear()
    texts_of(on_hub(split="odd"), places)
    assert not any(path.endswith(("a-0.jsonl", "x.jsonl", ".py")) for path in hub.asked)


def test_a_hub_that_needs_a_token_is_given_the_mounted_one(hub: Hub, places: Places) -> None:
    hub.token = "secret"
    (places.tokens / "hub").mkdir(parents=True)
    (places.tokens / "hub" / "token").write_text("secret\n")
    assert texts_of(on_hub(tokenSecretRef={"name": "hub", "key": "token"}), places) == {"one", "two", "three"}
    with pytest.raises(DeterministicError, match=r"dataset.huggingFace.*tokenSecretRef") as caught:
        texts_of(on_hub(), places)
    assert caught.value.reason == "SourceAccessDenied"


@pytest.mark.parametrize(
    ("changes", "reason", "word"),
    [
        ({"revision": "main"}, "InvalidRevision", "dataset.huggingFace.revision"),
        ({"split": "nothing"}, "InvalidDataset", "odd, train"),
        ({"revision": "f" * 40}, "SourceNotFound", "org/name"),
    ],
)
def test_hub_data_sets_that_are_not_there(
    hub: Hub, places: Places, changes: dict[str, str], reason: str, word: str
) -> None:
    with pytest.raises(DeterministicError) as caught:
        texts_of(on_hub(**changes), places)
    assert caught.value.reason == reason
    assert word in caught.value.message


def test_a_hub_that_cannot_be_reached_says_so_in_one_sentence(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientError) as caught:
        texts_of(on_hub(), places)
    assert caught.value.reason == "HubUnavailable"
    assert "http://127.0.0.1:9: cannot be reached" in caught.value.message
