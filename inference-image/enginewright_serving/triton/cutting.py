"""Cuts texts that are far longer than an engine reads before their tokens are counted: megabytes take seconds.

A text is cut only where a word ends and only where its first part alone has all the tokens that the engine takes, so
that the tokens are those of the whole text. Where words cannot be told from outside the tokenizer nothing is cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

Text = str | tuple[str, str]
"""A text, or a query and a text that is ranked for it."""


@dataclass(frozen=True, slots=True)
class Care:
    """How near to what is read a text is cut."""

    characters_a_token: int
    """Of the first part that is looked at: prose has about five."""
    growth: int
    """How many times longer the next part is, where one had too few tokens."""
    spared: int
    """How many times longer than its part a text must be: a look at a part costs as well."""


_FOR_TIME = Care(characters_a_token=16, growth=8, spared=2)
_FOR_MEMORY = Care(characters_a_token=2, growth=2, spared=1)
"""For two long texts of a pair: the tokenizer keeps each part that it cuts off the one with each part of the other."""

_JOINS_WHAT_FOLLOWS = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U00011000-\U00011fff"
"""Scripts that have characters which form one with the character after them, even a space (Unicode's `Prepend`)."""
_IDEOGRAPH = "[\u3400-\u4dbf\u4e00-\u9fff]"

_LIES_ACROSS = re.compile(rf"\S\s|{_IDEOGRAPH}{{2}}")
"""In tokens that are looked for before a text is split: one with it could begin before the end of a word and go on."""

_NORMALIZERS = frozenset(
    {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Nmt", "Precompiled",
     "Prepend"}
)  # fmt: skip
"""Those that make of a word what they would make of it alone."""
_SPLITTERS = {
    "BertPreTokenizer": " \n", "Whitespace": " \n", "WhitespaceSplit": " \n", "ByteLevel": " \n", "Metaspace": " ",
}  # fmt: skip
"""Before which characters each of them ends a word, whatever the word is."""
_WITHIN_WORDS = frozenset({"Digits", "Punctuation"})


class Cutter:
    """For one tokenizer, which truncates to as many tokens already."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._word_end = word_end(tokenizer)

    def cut(self, texts: Sequence[Text]) -> list[Text]:
        """The texts with what is never read left out.

        Of a pair of which both texts alone have more tokens than the engine takes, each gets half as before; the odd
        token may go to the other text.
        """
        cut = self._replaced(texts, {one for text in texts for one in _both(text)}, _FOR_TIME)
        few = self._max_tokens * _FOR_MEMORY.characters_a_token
        long_pairs = [text for text in cut if not isinstance(text, str) and min(map(len, text)) > few]
        return self._replaced(cut, {one for text in long_pairs for one in text}, _FOR_MEMORY)

    def _replaced(self, texts: Sequence[Text], long: Iterable[str], care: Care) -> list[Text]:
        parts = self._parts(long, care)
        if not parts:
            return list(texts)

        def part(text: str) -> str:
            return parts.get(text, text)

        return [part(text) if isinstance(text, str) else (part(text[0]), part(text[1])) for text in texts]

    def _parts(self, texts: Iterable[str], care: Care) -> dict[str, str]:
        """First parts of the texts that are too long."""
        found: dict[str, str] = {}
        size = self._max_tokens * care.characters_a_token
        waiting = list(texts)
        while True:
            tried = [(text, part) for text in waiting if (part := self._part(text, size, care.spared))]
            if not tried:
                return found
            encodings = self._tokenizer.encode_batch_fast([part for _, part in tried])
            full = [len(encoding.ids) >= self._max_tokens for encoding in encodings]
            found |= {text: part for (text, part), enough in zip(tried, full, strict=True) if enough}
            waiting = [text for (text, _), enough in zip(tried, full, strict=True) if not enough]
            size *= care.growth

    def _part(self, text: str, size: int, spared: int) -> str:
        """At least so many characters, up to the end of a word; empty where that is not much less than the text."""
        if self._word_end is None or len(text) <= spared * size:
            return ""
        end = self._word_end.search(text, size)
        return text[: end.start()] if end is not None and spared * end.start() < len(text) else ""


def _both(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def word_end(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Where a text may be cut without another token before the cut; None where nothing is certain."""
    normalizers = _steps(tokenizer.normalizer, "normalizers")
    breaks = _breaks(_steps(tokenizer.pre_tokenizer, "pretokenizers"))
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if not breaks or any(_LIES_ACROSS.search(content) for content in added):
        return None
    if not all(_keeps_words(step) for step in normalizers):
        return None
    ends = [f"(?<=[^\\s{_JOINS_WHAT_FOLLOWS}])(?=[{breaks}])"]
    if any(step["type"] == "BertNormalizer" and step["handle_chinese_chars"] for step in normalizers):
        ends.append(f"(?<={_IDEOGRAPH})(?={_IDEOGRAPH})")
    return re.compile("|".join(ends))


def _steps(component: Any, inner: str) -> list[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer as the steps that it consists of."""
    if component is None:
        return []
    return list(_flat(json.loads(component.__getstate__()), inner))


def _flat(step: Mapping[str, Any], inner: str) -> Iterable[Mapping[str, Any]]:
    if step["type"] != "Sequence":
        yield step
        return
    for one in step[inner]:
        yield from _flat(one, inner)


def _breaks(steps: Sequence[Mapping[str, Any]]) -> str:
    """Characters that begin another word; empty where there are none."""
    for step in steps:
        kind = step["type"]
        if kind in _WITHIN_WORDS:
            continue
        splits = step.get("use_regex", True) and step.get("split", True)
        return _SPLITTERS.get(kind, "") if splits else ""
    return ""


def _keeps_words(step: Mapping[str, Any]) -> bool:
    if step["type"] != "Replace":
        return step["type"] in _NORMALIZERS
    ((kind, pattern),) = step["pattern"].items()
    if kind == "Regex":
        return pattern in (" {2,}", r"\s+") and step["content"] == " "
    return not any(character.isspace() for character in pattern)
