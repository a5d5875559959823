"""Reading files: what YAML would silently change is refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_cli.documents import read_documents


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2\n", ":2: key 'a' appears twice (also on line 1)"),
        ("outer:\n  deep: 1\n  deep: 2\n", ":3: key 'deep' appears twice"),
        ("answer: y\n", ":1: y would be read as a boolean"),
        ("answer: [no]\n", ":1: no would be read as a boolean"),
        ("a: [1\n", ": expected ',' or ']'"),
        ("- 1\n", "expected an object"),
        ("!!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("", "holds no objects"),
        ("name: {{ .Values.name }}\n", ":1: a key must be a text; templates have to be rendered first"),
        ("? [a]\n: b\n", ":1: a key must be a text"),
        ("a: " + "[" * 5000 + "]" * 5000, "is nested too deeply"),
    ],
)
def test_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(DeterministicError) as caught:
        read_documents(str(path))
    assert says in caught.value.message
    assert str(path) in caught.value.message


def test_true_and_false_are_booleans_and_quotes_keep_words(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text('a: true\nb: "yes"\nc: No-thing\n')
    assert read_documents(str(path)) == [{"a": True, "b": "yes", "c": "No-thing"}]


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text('a: 1e-2\nb: "1e-2"\nc: 1e2x\n')
    assert read_documents(str(path)) == [{"a": 0.01, "b": "1e-2", "c": "1e2x"}]


def test_lists_several_documents_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("kind: List\nitems: [{kind: A}, {kind: B}]\n")
    (tmp_path / "a.yaml").write_text("kind: C\n---\n---\nkind: D\n")
    (tmp_path / "notes.txt").write_text("not: yaml: at all")
    assert [document["kind"] for document in read_documents(str(tmp_path))] == ["C", "D", "A", "B"]


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DeterministicError, match="there is no such file"):
        read_documents(str(tmp_path / "none.yaml"))
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.yaml").mkdir()
    for place in (tmp_path / "x.yaml", tmp_path):
        with pytest.raises(DeterministicError, match=r"x\.yaml: cannot be read"):
            read_documents(str(place))
