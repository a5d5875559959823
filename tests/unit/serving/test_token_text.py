"""Tokens back to text: whole characters, stop strings over any split, bytes of single tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from enginewright_serving.triton.token_text import _BYTE_OF, TokenBytes, TokenText

CHARACTER_OF = {byte: character for character, byte in _BYTE_OF.items()}


def byte_tokenizer() -> Tokenizer:
    """One token a byte, as the rarest text of a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE({CHARACTER_OF[byte]: byte for byte in range(256)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


TOKENIZER = byte_tokenizer()


@given(text=st.text(min_size=1, max_size=30))
def test_text_comes_whole_and_no_character_in_parts(text: str) -> None:
    stream = TokenText(TOKENIZER)
    pieces = [stream.add([byte]) for byte in text.encode()]
    assert "".join(pieces) + stream.end() == text
    assert all(piece == "" or piece in text for piece in pieces)


def test_an_answer_cut_inside_a_character_shows_that() -> None:
    stream = TokenText(TOKENIZER)
    assert stream.add(list("aé".encode())[:2]) == "a"
    assert stream.end() == "\ufffd"
    special = TokenText(TOKENIZER)
    assert special.add([97, TOKENIZER.token_to_id("<end>")]) == "a"
    assert special.end() == ""


@given(
    text=st.text(alphabet="abc", max_size=30),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
    size=st.integers(1, 5),
)
def test_nothing_from_a_stop_string_on_is_shown_however_it_is_split(text: str, stops: list[str], size: int) -> None:
    stream = TokenText(TOKENIZER, stops)
    shown = ""
    raw = list(text.encode())
    for start in range(0, len(raw), size):
        shown += stream.add(raw[start : start + size])
        if stream.stopped:
            break
    shown += stream.end()
    met = [text.find(stop) for stop in stops if stop in text]
    if not met:
        assert (shown, stream.stopped) == (text, False)
        return
    assert stream.stopped
    # The first stop string to be complete ends the answer; one that begins earlier may still be incomplete then.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    seen = text[: -(-min(ends) // size) * size]
    assert shown == seen[: min(seen.find(stop) for stop in stops if stop in seen)]


@pytest.mark.parametrize("held", ["E", "EN", "END"])
def test_what_may_begin_a_stop_string_waits_and_comes_when_it_does_not(held: str) -> None:
    stream = TokenText(TOKENIZER, ["END."])
    assert stream.add(list(f"x{held}".encode())) == "x"
    assert stream.add(list(b"y")) == f"{held}y"


def test_bytes_of_a_token() -> None:
    of = TokenBytes(TOKENIZER, frozenset({65}))
    assert [of.of(byte) for byte in (0, 32, 195, 255)] == [b"\x00", b" ", b"\xc3", b"\xff"]
    assert of.of(TOKENIZER.token_to_id("<end>")) == b"<end>"
    assert of.of(65) == b""
    sentence = Tokenizer(models.WordLevel({"\u2581a": 0, "<0xC3>": 1}, unk_token="\u2581a"))
    sentence.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    assert [TokenBytes(sentence).of(token) for token in (0, 1)] == [b" a", b"\xc3"]
