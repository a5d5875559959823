"""Real texts of an exact number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from enginewright_api.errors import DeterministicError


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
