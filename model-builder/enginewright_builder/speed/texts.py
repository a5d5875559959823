"""Real texts of an exact number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enginewright_api.errors import DeterministicError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def texts_of(tokens: int, count: int, material: Sequence[str], tokenizer_folder: Path) -> list[str]:
    """`count` texts that the tokenizer turns into exactly `tokens` tokens, special ones included.

    Sentences are joined until they are long enough, then cut at a token's end. Raises DeterministicError when the
    tokenizer adds more special tokens than that.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = []
    start = 0
    for _ in range(count):
        text, start = _joined(material, start, tokens)
        texts.append(_cut(tokenizer, text, tokens))
    return texts


def pairs_of(tokens: int, count: int, material: Sequence[str], tokenizer_folder: Path) -> list[tuple[str, str]]:
    """`count` pairs that the tokenizer turns into exactly `tokens` tokens together: a query of about a quarter, a text.

    Raises DeterministicError as `texts_of`.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    between = tokenizer.num_special_tokens_to_add(True) - tokenizer.num_special_tokens_to_add(False)
    return [_parted(tokenizer, text, tokens) for text in texts_of(tokens - between, count, material, tokenizer_folder)]


def _parted(tokenizer: Tokenizer, text: str, tokens: int) -> tuple[str, str]:
    """At the first space from a quarter on where no token is split or joined; else at the quarter."""
    quarter = len(text) // 4
    for place in range(quarter, len(text)):
        pair = (text[:place], text[place + 1 :])
        if text[place] == " " and len(tokenizer.encode(*pair).ids) == tokens:
            return pair
    return text[:quarter], text[quarter:]


def _joined(material: Sequence[str], start: int, tokens: int) -> tuple[str, int]:
    """At least two characters a token are needed for any tokenizer to reach the length; take eight."""
    parts: list[str] = []
    length = 0
    while length < tokens * 8:
        part = material[start % len(material)]
        parts.append(part)
        length += len(part) + 1
        start += 1
    return " ".join(parts), start


def _cut(tokenizer: object, text: str, tokens: int) -> str:
    from tokenizers import Tokenizer

    if not isinstance(tokenizer, Tokenizer):
        raise TypeError("a tokenizers.Tokenizer is needed")
    encoding = tokenizer.encode(text)
    special = sum(encoding.special_tokens_mask)
    wanted = tokens - special
    if wanted < 1:
        raise DeterministicError(
            "LimitExceeded", f"engine.limits.maxInputTokens: {tokens} leaves no room beside {special} special tokens"
        )
    ends = [stop for (_, stop), mask in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not mask]
    # Cutting inside a word can split it differently: walk until the count is right.
    for position in range(wanted - 1, len(ends)):
        candidate = text[: ends[position]]
        found = len(tokenizer.encode(candidate).ids)
        if found == tokens:
            return candidate
        if found > tokens + 4:
            break
    for length in range(ends[wanted - 1], 0, -1):
        if len(tokenizer.encode(text[:length]).ids) == tokens:
            return text[:length]
    return text[: ends[wanted - 1]]
