"""Tokens back to text: whole characters only, nothing past a stop string, the bytes of a single token."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"
"""SentencePiece writes a space so."""


class TokenText:
    """Text of one answer as its tokens come. Bytes of a character are held back until it is whole."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stops = tuple(stops)
        self._held = ""
        self._pending: list[int] = []
        self.stopped = False
        """Whether a stop string was met; nothing comes after it."""

    def add(self, token_ids: Sequence[int]) -> str:
        """Text that can be shown now; what may turn out to begin a stop string waits."""
        for token_id in token_ids:
            piece = self._stream.step(self._tokenizer, token_id)
            self._pending = [*self._pending, token_id] if piece is None else []
            self._held += piece or ""
        return self._release(whole=False)

    def end(self) -> str:
        """What was still held back, when no more tokens come."""
        if self._pending:  # part of a character, shown as U+FFFD, or a special token, shown as nothing
            self._held += self._tokenizer.decode(self._pending, skip_special_tokens=True)
            self._pending = []
        return self._release(whole=True)

    def _release(self, *, whole: bool) -> str:
        if self.stopped:
            return ""
        met = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if met:
            self.stopped = True
            return self._held[: min(met)]
        keep = 0 if whole else max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class TokenBytes:
    """Bytes of single tokens: a token may hold part of a character."""

    def __init__(self, tokenizer: Tokenizer, silent: frozenset[int] = frozenset()) -> None:
        decoder = json.loads(tokenizer.to_str())["decoder"]
        self._tokenizer = tokenizer
        self._silent = silent
        self._byte_level = "ByteLevel" in json.dumps(decoder)

    def of(self, token_id: int) -> bytes:
        """Bytes that the token stands for; none for those that end an answer."""
        if token_id in self._silent:
            return b""
        token = self._tokenizer.id_to_token(token_id) or ""
        if self._byte_level:
            try:
                return bytes(_BYTE_OF[character] for character in token)
            except KeyError:  # an added token is plain text
                return token.encode()
        match = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(match[1], 16)]) if match else token.replace(_SPACE, " ").encode()


def _byte_level_alphabet() -> dict[str, int]:
    """Character of each byte in byte-level BPE (GPT-2): printable ones stand for themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTE_OF = _byte_level_alphabet()
