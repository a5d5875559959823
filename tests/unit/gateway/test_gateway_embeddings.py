"""/v1/embeddings: what is accepted, what is refused with which sentence, how vectors are written."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from enginewright_gateway.errors import RefusedError
from enginewright_gateway.openai_embeddings import answer_body, parse, shorten


@pytest.mark.parametrize(
    ("given_input", "texts"),
    [("a", [b"a"]), (["a", "ä"], [b"a", "ä".encode()]), (["x"] * 2048, [b"x"] * 2048), (["\0"], [b"\0"])],
    ids=["text", "list", "most", "nul"],
)
def test_texts_are_taken(given_input: Any, texts: list[bytes]) -> None:
    request, found = parse(json.dumps({"model": "m", "input": given_input, "user": "u"}).encode())
    assert found == texts
    assert (request.model, request.encoding_format) == ("m", "float")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"model": "m", "input": "\xff"}', "not valid JSON"),
        (b'{"model": "m", "input": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"input": "a"}', "model: is missing"),
        (b'{"model": "", "input": "a"}', "model: "),
        (b'{"model": 5, "input": "a"}', "model: "),
        (b'{"model": "m"}', "input: is missing"),
        (b'{"model": "m", "input": null}', "input: must be a text"),
        (b'{"model": "m", "input": {"a": 1}}', "input: must be a text"),
        (b'{"model": "m", "input": ["a", 5]}', "input: must be a text"),
        (b'{"model": "m", "input": ""}', "text 0 is empty"),
        (b'{"model": "m", "input": ["a", ""]}', "text 1 is empty"),
        (b'{"model": "m", "input": []}', "1 to 2048"),
        (json.dumps({"model": "m", "input": ["a"] * 2049}).encode(), "1 to 2048"),
        (b'{"model": "m", "input": [1, 2]}', "token ids"),
        (b'{"model": "m", "input": [[1, 2]]}', "token ids"),
        (b'{"model": "m", "input": "a", "dimensions": 0}', "dimensions: "),
        (b'{"model": "m", "input": "a", "dimensions": "8"}', "dimensions: "),
        (b'{"model": "m", "input": "a", "encoding_format": "hex"}', "encoding_format: "),
        (b'{"model": "m", "input": "a", "truncate": true}', "truncate: is not a field"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(body: bytes, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as caught:
        parse(body)
    assert caught.value.status == 400


VECTORS = hnp.arrays(np.float32, (3, 8), elements=st.floats(-10, 10, width=32))


@given(vectors=VECTORS, dimensions=st.integers(1, 8))
def test_shortened_vectors_have_length_one_and_the_same_direction(vectors: np.ndarray, dimensions: int) -> None:
    short = shorten(vectors, dimensions)
    assert short.shape == (3, dimensions)
    for before, after in zip(vectors[:, :dimensions].astype(np.float64), short, strict=True):
        length = np.linalg.norm(before)
        if length > 1e-3:
            np.testing.assert_allclose(after, before / length, atol=1e-4)


def test_no_dimensions_leave_vectors_alone_and_too_many_are_refused() -> None:
    vectors = np.full((1, 8), 2.0, dtype=np.float32)
    assert shorten(vectors, None) is vectors
    with pytest.raises(RefusedError, match="the model has 8, 9 were asked for"):
        shorten(vectors, 9)


@given(VECTORS)
def test_both_encodings_carry_the_same_numbers_exactly(vectors: np.ndarray) -> None:
    as_floats = json.loads(answer_body("m", vectors, 7, "float"))
    as_base64 = json.loads(answer_body("m", vectors, 7, "base64"))
    assert as_floats["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [item["index"] for item in as_floats["data"]] == [0, 1, 2]
    for row, item, packed in zip(vectors, as_floats["data"], as_base64["data"], strict=True):
        assert np.array_equal(np.array(item["embedding"], dtype=np.float32), row)
        assert np.array_equal(np.frombuffer(base64.b64decode(packed["embedding"]), dtype="<f4"), row)
