"""Whatever is read from outside: an EnginewrightError with one sentence, or a value. Never anything else, never long.

Examples that once broke a reader are kept beside it.
"""

from __future__ import annotations

import json
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enginewright_api.errors import EnginewrightError
from enginewright_api.identity import canonical_json
from enginewright_api.source import Columns
from enginewright_builder.datasets.rows import Row, read_rows
from enginewright_builder.datasets.splits import split_files
from enginewright_builder.settings import read_request
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.sources.safetensors_file import read_header
from enginewright_serving.repository import read_json
from enginewright_store.artifact import parse_manifest
from tests.unit.builder.test_broken_checkpoints import CONFIG, checkpoint
from tests.unit.builder.test_builder_parts import facts, request

SECONDS = 20.0
"""Generous: machines are busy. A reader that hangs or builds a quadratic list takes minutes."""

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def refused_or_read(read: Callable[[], object]) -> object:
    """The value, or None when it was refused as it should be."""
    begun = time.monotonic()
    try:
        return read()
    except EnginewrightError as error:
        assert error.reason.isidentifier()
        assert 10 < len(error.message) < 2000
        assert "\n" not in error.message
        return None
    finally:
        assert time.monotonic() - begun < SECONDS


def in_file(name: str, content: bytes, read: Callable[[Path], object]) -> object:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        return refused_or_read(lambda: read(file))


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """A valid JSON value with one part replaced, removed or added."""
    value = json.loads(json.dumps(valid))
    parent, steps = value, draw(st.integers(0, 6))
    for _ in range(steps):
        children = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        inner = [child for child in children if isinstance(parent[child], dict | list) and parent[child]]
        if not inner:
            break
        parent = parent[draw(st.sampled_from(inner))]
    key = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
    if isinstance(parent, dict) and draw(st.booleans()):
        parent[draw(st.text(max_size=6))] = parent.pop(key)
    else:
        parent[key] = draw(JSON)
    return value


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@given(st.one_of(st.binary(max_size=200), JSON.map(as_json), mutated(request().wire()).map(as_json)))
@example(b"")
@example(b"\xff")
@example(b"[" * 50_000)
@example(b'{"key": NaN}')
@example(as_json(request().wire() | {"\n": 1}))
def test_recipes(content: bytes) -> None:
    in_file("recipe.json", content, read_request)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors(header: Any, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    text = as_json(header)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


TENSORS = st.dictionaries(
    st.text(max_size=4),
    st.one_of(
        JSON,
        st.builds(
            entry,
            st.sampled_from(["F32", "BF16", "I8", "F4", "", "f32", None]),
            st.one_of(JSON, st.lists(st.integers(-3, 2**40), max_size=4)),
            st.one_of(JSON, st.lists(st.integers(-8, 64), min_size=2, max_size=2)),
        ),
    ),
    max_size=4,
)


@given(
    st.one_of(
        st.binary(max_size=64),
        st.builds(safetensors, st.one_of(JSON, TENSORS), st.binary(max_size=64)),
        st.builds(safetensors, TENSORS, st.binary(max_size=16), st.integers(0, 2**64 - 1)),
    )
)
@example(safetensors({"a": entry(), "b": entry()}))
@example(safetensors({"a": entry(offsets=(8, 0), shape=[-2])}))
@example(safetensors({"a": entry(shape=[0, 10**30], offsets=(0, 0)), "b": entry()}))
@example(safetensors({"a": entry(shape=["2"])}))
@example(safetensors({"a": entry(shape=[2.5])}))
@example(safetensors({"a": entry(shape=[True, 2])}))
@example(safetensors({"a": entry(shape=[float("inf")])}))
@example(safetensors({"a": entry(offsets=(float("nan"), 8))}))
@example(safetensors({"a": entry(dtype=["F32"])}))
@example(struct.pack("<Q", 60_000) + b"[" * 60_000)
@example(struct.pack("<Q", 2**63) + b"{}")
@example(safetensors({"a\ud800": entry(), "b": 1}))
def test_headers_of_weights(content: bytes) -> None:
    found = in_file("w.safetensors", content, lambda file: read_header(file, name="w.safetensors"))
    if found is not None:
        assert found.parameters >= 0  # type: ignore[attr-defined]
        sizes = [side for shape in found.shapes.values() for side in shape]  # type: ignore[attr-defined]
        assert all(type(side) is int and side >= 0 for side in sizes)


@pytest.mark.parametrize("header", [{"a": entry(), "b": entry()}, {"a": entry(), "b": entry(offsets=(4, 12))}])
def test_tensors_that_overlap_are_refused(tmp_path: Path, header: Any) -> None:
    (tmp_path / "w.safetensors").write_bytes(safetensors(header, b"\0" * 12 if len(header) > 1 else b"\0" * 8))
    with pytest.raises(EnginewrightError, match=r"w\.safetensors"):
        read_header(tmp_path / "w.safetensors", name="w.safetensors")


@given(
    st.sampled_from(["config.json", "tokenizer.json", "modules.json", "model.safetensors.index.json"]),
    st.one_of(st.binary(max_size=60), JSON.map(as_json), mutated(CONFIG).map(as_json)),
)
@example("config.json", b"[" * 50_000)
@example("tokenizer.json", b"[]")
@example("model.safetensors.index.json", b"[]")
@example("model.safetensors.index.json", b'{"weight_map": {"a": "\\u0000.safetensors"}}')
@example("modules.json", b"{}")
@example("modules.json", b"[1]")
@example("modules.json", b'[{"type": "x.Pooling"}]')
@example("modules.json", b'[{"type": "x.Pooling", "path": "../.."}]')
@example("config.json", as_json(CONFIG | {"id2label": {"a": 1}}))
@example("config.json", as_json(CONFIG | {"id2label": [1]}))
@example("config.json", as_json(CONFIG | {"num_labels": "many"}))
@example("config.json", as_json(CONFIG | {"num_labels": 10**12}))
@example("config.json", as_json(CONFIG | {"max_position_embeddings": -5}))
def test_checkpoints(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder))
        (Path(folder) / name).write_bytes(content)
        found = refused_or_read(lambda: inspect(Path(folder)))
        if found is not None:
            refused_or_read(found.pooling)  # type: ignore[attr-defined]
            refused_or_read(found.labels)  # type: ignore[attr-defined]
            refused_or_read(lambda: found.max_input_tokens)  # type: ignore[attr-defined]


ALL_COLUMNS = Columns.model_validate({"textPair": "b", "label": "l", "score": "s"})


@given(
    st.sampled_from(["x.jsonl", "x.csv", "x.txt", "x.parquet"]),
    st.one_of(
        st.binary(max_size=100),
        st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(st.fixed_dictionaries({"text": JSON, "b": JSON, "l": JSON, "s": JSON}), max_size=3).map(
            lambda rows: b"\n".join(map(as_json, rows))
        ),
    ),
    st.sampled_from([Columns(), ALL_COLUMNS]),
)
@example("x.jsonl", b"[" * 50_000, Columns())
@example("x.jsonl", b'{"text": "a", "b": "b", "l": 1, "s": 1e999}', ALL_COLUMNS)
@example("x.jsonl", b'{"text": ' + b"9" * 5000 + b"}", Columns())
@example("x.csv", b"text\n" + b"a" * 200_000 + b"\n", Columns())
@example("x.csv", b"text,text\n1\n", Columns())
@example("x.csv", b"a\n1,2,3\n", Columns())
@example("x.csv", b'text\n"', Columns())
@example("x.csv", b"text\n\0\n", Columns())
@example("x.parquet", b"PAR1" + b"\0" * 20 + b"PAR1", Columns())
def test_rows(name: str, content: bytes, columns: Columns) -> None:
    found = in_file(name, content, lambda file: read_rows(file, columns, name=name))
    if found is not None:
        assert all(type(row) is Row and row.text.strip() for row in found)  # type: ignore[attr-defined]


@given(st.lists(st.text(st.sampled_from("trainestdv/._-0123"), max_size=12), max_size=5), st.text(max_size=8))
def test_splits(names: list[str], split: str) -> None:
    refused_or_read(lambda: split_files([f"{name}.csv" for name in names], split, name="set"))


CARDS = st.one_of(
    st.text(max_size=60),
    mutated({"configs": [{"config_name": "a", "data_files": [{"split": "x", "path": ["*"]}]}]}).map(json.dumps),
)


@given(CARDS)
@example('{"configs": [{"data_files": [{"split": "x", "path": {"a": 1}}]}]}')
@example("a: &a [*a]")
@example("? {a: 1}")
@example("2024-99-99")
def test_cards(card: str) -> None:
    refused_or_read(lambda: split_files(["a.csv"], "train", card=f"---\n{card}\n---\n", name="set"))


MANIFEST = {
    "key": "a" * 64,
    "recipe": request().recipe.wire(),
    "sourceDigest": "b" * 64,
    "toolchain": {"image": "local", "digest": "d"},
    "accelerator": {"acceleratorClass": "cpu", "vendor": "cpu"},
    "runtime": {"backend": "OpenVINO", "package": "openvino", "version": "1"},
    "files": [{"path": "engine.json", "size": 1, "sha256": "c" * 64}],
    "evidence": facts().evidence.wire(),
    "created": "2026-01-02T03:04:05Z",
}


def test_the_manifest_that_is_mutated_is_valid() -> None:
    assert parse_manifest(canonical_json(MANIFEST), "m").key == "a" * 64


@given(st.one_of(st.binary(max_size=60), mutated(MANIFEST).map(as_json)))
@example(b"[" * 50_000)
def test_manifests(content: bytes) -> None:
    refused_or_read(lambda: parse_manifest(content, "file:///x/manifest.json"))


@given(st.one_of(st.binary(max_size=60), mutated(facts().description.wire()).map(as_json)))
@example(b"[" * 50_000)
def test_descriptions_of_engines(content: bytes) -> None:
    kind = type(facts().description)
    in_file("engine.json", content, lambda file: read_json(file, kind, reason="InvalidEngine"))
