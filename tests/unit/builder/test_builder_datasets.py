"""Rows: read with clear refusals, drawn alike on every machine, never calibrated on what is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.source import Columns, Dataset
from enginewright_builder.datasets import news
from enginewright_builder.datasets.draw import Drawn, draw, without_leaks
from enginewright_builder.datasets.rows import Row, read_rows
from enginewright_builder.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path / "work", tmp_path / "datasets", tmp_path / "volumes", tmp_path / "tokens")
    found.scratch.mkdir(parents=True)
    return found


NEWS = Dataset.model_validate({"builtin": {"name": "news-en"}})
PAIRS = Columns.model_validate({"text": "a", "textPair": "b", "score": "s", "label": "l"})
WORDS = Columns.model_validate({"text": "tokens", "label": "ner_tags"})


def test_the_builtin_set_is_large_enough_and_its_halves_share_nothing(places: Places) -> None:
    calibration, evaluation = draw(NEWS, "calibration", places), draw(NEWS, "evaluation", places)
    assert len(evaluation.rows) >= 512
    assert len(calibration.rows) >= 256
    documents = news.documents()
    for drawn, wanted in ((calibration, True), (evaluation, False)):
        for row in drawn.rows[:50]:
            holders = [index for index, text in enumerate(documents) if row.text in text]
            assert any((index % 3 == 0) is wanted for index in holders)
    kept, leaked = without_leaks(calibration, evaluation.rows)
    assert not {row.normalized for row in kept.rows} & {row.normalized for row in evaluation.rows}
    assert leaked == len(calibration.rows) - len(kept.rows)


def test_passages_differ_in_length(places: Places) -> None:
    lengths = sorted(len(row.text.split()) for row in draw(NEWS, "evaluation", places).rows)
    assert lengths[len(lengths) // 10] < 20
    assert lengths[-len(lengths) // 10] > 60


@pytest.mark.parametrize(
    ("name", "content", "columns", "expected"),
    [
        ("x.jsonl", '{"text": "one"}\n\n{"text": "two"}\n', Columns(), [Row("one"), Row("two")]),
        ("x.csv", 'text\n"one, two"\nthree\n', Columns(), [Row("one, two"), Row("three")]),
        ("x.txt", "one\n\n  two \n", Columns(), [Row("one"), Row("two")]),
        ("x.jsonl", '{"a": "p", "b": "q", "s": 0.5, "l": 1}', PAIRS, [Row("p", "q", "1", 0.5)]),
        ("x.jsonl", '{"text": "a\u2028b\x85c"}\r\n{"text": "d"}\r\n', Columns(), [Row("a\u2028b\x85c"), Row("d")]),
        ("x.txt", "a\u2028b\x0cc\r\nd", Columns(), [Row("a\u2028b\x0cc"), Row("d")]),
        ("x.csv", "\ufefftext\none\n", Columns(), [Row("one")]),
        ("x.jsonl", '{"text": ["one", " two "]}', Columns(), [Row("one two")]),
        (
            "x.jsonl",
            '{"tokens": ["A", "b", "."], "ner_tags": [1, 0, "O"]}',
            WORDS,
            [Row("A b .", word_labels=("1", "0", "O"))],
        ),
    ],
)
def test_files_of_rows(tmp_path: Path, name: str, content: str, columns: Columns, expected: list[Row]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_rows(tmp_path / name, columns, name=name) == expected


@pytest.mark.parametrize(
    ("name", "content", "columns", "words"),
    [
        ("x.jsonl", b'{"body": "one"}', Columns(), ["x.jsonl", "line 1", "'text'", "columns.text", "body"]),
        ("x.jsonl", b'{"text": "one"}\n{', Columns(), ["x.jsonl", "line 2", "JSON"]),
        ("x.jsonl", b"[1]", Columns(), ["x.jsonl", "line 1", "object"]),
        ("x.jsonl", b"", Columns(), ["x.jsonl", "no rows"]),
        ("x.txt", b"\n \n", Columns(), ["x.txt", "no rows"]),
        ("x.txt", b"\xff\xfe", Columns(), ["x.txt", "UTF-8"]),
        ("x.json", b"[]", Columns(), ["x.json", ".jsonl"]),
        ("x.parquet", b"PAR1", Columns(), ["x.parquet", "Parquet"]),
        ("x.jsonl", b'{"text": null}', Columns(), ["x.jsonl", "line 1", "column 'text' (columns.text) is null"]),
        ("x.jsonl", b'{"text": {"a": 1}}', Columns(), ["x.jsonl", "line 1", "no text"]),
        ("x.jsonl", b'{"text": [["a"]]}', Columns(), ["x.jsonl", "line 1", "no text"]),
        ("x.jsonl", b'{"text": [101, 102]}', Columns(), ["x.jsonl", "line 1", "holds 101, no text"]),
        ("x.jsonl", b'{"text": []}', Columns(), ["x.jsonl", "line 1", "'text'", "no words"]),
        ("x.jsonl", b'{"text": ["New York"]}', Columns(), ["x.jsonl", "line 1", "'New York' holds a space"]),
        ("x.jsonl", b'{"tokens": ["a", "b"], "ner_tags": [1]}', WORDS, ["line 1", "2 words", "'ner_tags' 1 labels"]),
        ("x.jsonl", b'\n{"tokens": ["a"], "ner_tags": 1}', WORDS, ["line 2", "'ner_tags'", "is 1, no list"]),
        ("x.jsonl", b'{"tokens": ["a"]}', WORDS, ["line 1", "'ner_tags'", "is nothing, no list"]),
        ("x.jsonl", b'{"tokens": "a b", "ner_tags": [1, 1]}', WORDS, ["line 1", "'ner_tags'", "no list of words"]),
        ("x.jsonl", b'{"text": "\\ud800"}', Columns(), ["x.jsonl", "line 1", "surrogates"]),
        ("x.jsonl", b"[" * 100_000, Columns(), ["x.jsonl", "line 1", "JSON"]),
        ("x.jsonl", b'{"text": ' + b"9" * 5000 + b"}", Columns(), ["x.jsonl", "line 1"]),
        ("x.jsonl", b'{"a": "p", "b": "q", "s": NaN, "l": 1}', PAIRS, ["x.jsonl", "'s'", "nan"]),
        ("x.csv", b"a,b,s,l\n1,2,high,0\n", PAIRS, ["x.csv", "line 2", "'s'", "high"]),
        ("x.csv", b"text\none\n", PAIRS, ["x.csv", "columns.score", "'s'"]),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes, columns: Columns, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeterministicError) as caught:
        read_rows(tmp_path / name, columns, name=name)
    assert caught.value.reason == "InvalidDataset"
    for word in words:
        assert word in caught.value.message


def tagged(file: Path, labels: str, metadata: str) -> Path:
    """A Parquet file as the library datasets writes one."""
    query = (
        f"COPY (SELECT ['Ada', 'met', 'Bob'] AS tokens, {labels} AS ner_tags) TO '{file}' (FORMAT parquet{metadata})"
    )
    with duckdb.connect(":memory:") as connection:
        connection.execute(query)
    return file


NAMED = ', KV_METADATA {huggingface: \'{"info": {"features": {"ner_tags": %s}}}\'}'
CLASSES = '{"_type": "ClassLabel", "names": ["O", "B-LOC", "B-PER"]}'


@pytest.mark.parametrize(
    ("labels", "metadata", "expected"),
    [
        ("[2, 0, 2]", NAMED % f'{{"_type": "List", "feature": {CLASSES}}}', ("B-PER", "O", "B-PER")),
        ("[2, 0, 2]", NAMED % f"[{CLASSES}]", ("B-PER", "O", "B-PER")),
        ("[2, 0, 2]", NAMED % '{"_type": "List", "feature": {"_type": "Value", "dtype": "int64"}}', ("2", "0", "2")),
        ("[2, 0, 2]", "", ("2", "0", "2")),
        ("['B-X', 'O', 'O']", "", ("B-X", "O", "O")),
    ],
)
def test_numbers_mean_what_a_parquet_file_itself_calls_them(
    tmp_path: Path, labels: str, metadata: str, expected: tuple[str, ...]
) -> None:
    file = tagged(tmp_path / "x.parquet", labels, metadata)
    assert read_rows(file, WORDS, name="x") == [Row("Ada met Bob", word_labels=expected)]


def test_a_number_that_the_file_does_not_name_is_refused(tmp_path: Path) -> None:
    file = tagged(tmp_path / "x.parquet", "[2, -100, 2]", NAMED % f"[{CLASSES}]")
    with pytest.raises(DeterministicError, match=r"line 1: label '-100' is none of the classes .* \(O, B-LOC, B-PER\)"):
        read_rows(file, WORDS, name="x")


def dataset(**kind: Any) -> Dataset:
    return Dataset.model_validate(kind)


def test_rows_come_from_where_the_operator_mounts_them(places: Places, tmp_path: Path) -> None:
    for folder in (places.datasets / "rows", places.volumes / "claim", tmp_path / "bucket"):
        folder.mkdir(parents=True)
        (folder / "data.txt").write_text("one\ntwo\n")
    for given in (
        dataset(configMap={"name": "rows", "key": "data.txt"}),
        dataset(persistentVolumeClaim={"claimName": "claim", "path": "data.txt"}),
        dataset(objectStore={"uri": (tmp_path / "bucket" / "data.txt").as_uri()}),
    ):
        assert {row.text for row in draw(given, "evaluation", places).rows} == {"one", "two"}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"configMap": {"name": "rows", "key": "gone.txt"}}, "rows/gone.txt"),
        ({"persistentVolumeClaim": {"claimName": "c", "path": "../../../etc/hosts.txt"}}, "leads out"),
        ({"objectStore": {"uri": "file:///no/such.feather"}}, "such.feather"),
        ({"objectStore": {"uri": "file:///no/such/folder"}}, "such/folder"),
        ({"builtin": {"name": "poems"}}, "poems"),
    ],
)
def test_sets_that_are_not_there(places: Places, given: dict[str, Any], word: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        draw(dataset(**given), "evaluation", places)
    assert caught.value.reason == "InvalidDataset"
    assert word in caught.value.message


def test_a_draw_does_not_depend_on_the_order_of_the_file_and_grows_at_its_end(places: Places) -> None:
    (places.datasets / "rows").mkdir(parents=True)
    texts = [f"sentence {number}" for number in range(50)]
    drawn = []
    for order in (texts, texts[::-1], texts + texts):
        (places.datasets / "rows" / "data.txt").write_text("\n".join(order))
        drawn.append(draw(dataset(configMap={"name": "rows", "key": "data.txt"}), "evaluation", places))
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[0].rows != tuple(Row(text) for text in texts)
    assert drawn[0].first(20).rows == drawn[0].first(30).rows[:20]
    assert drawn[0].first(20).digest != drawn[0].first(21).digest


@pytest.mark.parametrize(
    ("text", "judged"),
    [
        ("Hello, world!", "hello world"),
        ("It costs 5\u00a0€ \u2013 really", "It costs 5 € - really."),
        ("\ufb01ne weather", "fine  weather"),
        ("STRASSE", "Straße"),
        ("caf\u0065\u0301", "café"),
        ("!!!", "!!!"),
    ],
)
def test_copies_that_differ_in_writing_only_are_leaks(text: str, judged: str) -> None:
    kept, leaked = without_leaks(Drawn("set", (Row(text), Row("other"))), [Row("x", text_pair=judged)])
    assert (kept.rows, leaked) == ((Row("other"),), 1)


def test_texts_of_other_words_are_no_leaks() -> None:
    calibration = Drawn("set", (Row("a dog 5"), Row("?!"), Row("a dog", text_pair="a cow")))
    assert without_leaks(calibration, [Row("a dog 6"), Row("!"), Row("a cat")])[1] == 0
    assert without_leaks(calibration, [Row("a cow")])[1] == 1, "second texts count too"


def test_rows_that_the_gate_judges_on_are_taken_out_and_counted() -> None:
    calibration = Drawn("set", (Row("The  Cat"), Row("a dog"), Row("a bird")))
    kept, leaked = without_leaks(calibration, [Row("the cat"), Row("A Bird")])
    assert (kept.rows, leaked) == ((Row("a dog"),), 2)
    with pytest.raises(DeterministicError, match="every calibration row"):
        without_leaks(calibration, calibration.rows)
