"""Sources in one line: what is read from them, and which of them a teacher may be."""

from __future__ import annotations

import pytest

from enginewright_api.short_source import source_block, teacher_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "block"),
    [
        (f"hf:org/name@{COMMIT}", {"huggingFace": {"repository": "org/name", "revision": COMMIT}}),
        ("s3://bucket/model", {"objectStore": {"uri": "s3://bucket/model"}}),
        ("file:///models/big", {"objectStore": {"uri": "file:///models/big"}}),
        ("package:big==1.0/model", {"package": {"name": "big", "version": "1.0", "path": "model"}}),
        ("package:big==1.0", {"package": {"name": "big", "version": "1.0"}}),
    ],
)
def test_every_form_of_a_pinned_source_may_teach(text: str, block: dict[str, object]) -> None:
    assert source_block(text) == block
    found = teacher_source(text)
    assert found is not None
    kind, fields = next(iter(block.items()))
    assert isinstance(fields, dict)
    assert fields.items() <= found.wire()[kind].items()


@pytest.mark.parametrize(
    "text",
    [
        "self",
        "big",
        "hf:org/name",
        "hf:org/name@main",
        f"hf:name@{COMMIT}",
        "gs://bucket/model",
        "s3://169.254.169.254/latest",
        "file://",
        "package:big",
        "package:big==1.0/../../etc",
        "package:big==1.0//etc",
        "registry/name@sha256:" + "0" * 64,
    ],
)
def test_what_can_move_or_is_not_reached_may_not_teach(text: str) -> None:
    assert teacher_source(text) is None
