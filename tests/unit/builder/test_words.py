"""Rows of words: which token speaks for a word, and what an engine with a limit reads of a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Task
from enginewright_builder.datasets.draw import Drawn
from enginewright_builder.datasets.judged import check_kind, judged
from enginewright_builder.datasets.rows import Row
from enginewright_builder.datasets.words import UNREAD, first_tokens, text_tokens

PIECES = ["[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##s", "u", ".", "n", "a", "国", "中"]
LABELS = ["O", "B-X", "I-X"]


def bert() -> Tokenizer:
    """Words cut into pieces, signs and Chinese letters by themselves."""
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def bytes_(*, trim: bool) -> Tokenizer:
    """As RoBERTa's and GPT's: the space before a word is part of its first token, or a token of its own."""
    tokenizer = Tokenizer(models.BPE(vocab={"Ġ": 0, "a": 1, "b": 2, "Ġa": 3, "c": 4}, merges=[("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, trim_offsets=trim)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    return tokenizer


def pieces() -> Tokenizer:
    """As XLM-RoBERTa's: the mark of a word's beginning may be a token of its own."""
    vocabulary = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -3.0), ("a", -4.0), ("b", -4.0), ("▁ab", -3.0)]
    tokenizer = Tokenizer(models.Unigram([*vocabulary, ("c", -4.0)], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


TOKENIZERS = {"bert": bert(), "bytes": bytes_(trim=True), "whole bytes": bytes_(trim=False), "pieces": pieces()}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(
    words=st.lists(
        st.sampled_from(["a", "ab", "c", "cab", "playing", "plays", "u.n.", "中国", "...", "n.", "zzz"]), min_size=1
    )
)
def test_first_tokens_are_those_a_list_of_words_would_have(name: str, words: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    text, listed = tokenizer.encode(" ".join(words)), tokenizer.encode(words, is_pretokenized=True)
    assert text.tokens == listed.tokens
    own = text_tokens(text)
    first = first_tokens(" ".join(words), [text.offsets[token] for token in own])
    expected = [listed.word_ids.index(number) for number in range(len(words))]
    assert [own[token] for token in first] == expected


def test_words_without_tokens_are_told() -> None:
    text = "a \u200b  n"
    encoding = bert().encode(text)
    own = text_tokens(encoding)
    assert first_tokens(text, [encoding.offsets[token] for token in own]).tolist() == [0, UNREAD, UNREAD, 1]
    assert first_tokens("a b", []).tolist() == [UNREAD, UNREAD]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bert().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_rows_are_cut_to_the_words_that_are_read(folder: Path) -> None:
    rows = (
        Row("playing a u.n. a", word_labels=("O", "B-X", "I-X", "O")),
        Row("a \u200b n", word_labels=("O", "B-X", "1")),
        Row("\u200b", word_labels=("O",)),
    )
    found = judged(Drawn("set", rows), LABELS, folder, max_tokens=7)
    # [CLS] play ##ing a u . [SEP]: the third word is begun, the fourth is not.
    assert found.rows == (
        Row("playing a u.n.", word_labels=("O", "B-X", "I-X")),
        Row("a n", word_labels=("O", "1")),
    )
    cut, whole = (bert(), bert())
    for tokenizer in (cut, whole):
        tokenizer.enable_truncation(7)
    assert cut.encode(found.rows[0].text).ids == whole.encode(rows[0].text).ids


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (Row("a n", word_labels=("O", "B-Y"), line=7), "set: line 7: label 'B-Y' is none of the model's (O, B-X, I-X)"),
        (Row("a n", word_labels=("O", "3"), line=7), "line 7: label '3'"),
        (Row("a n"), "'a n' has no labels of words"),
        (Row("a n", label="B-X"), "'a n' has one label as a whole"),
        (Row("\u200b", word_labels=("O",), line=1), "reads no word of its 1 rows"),
    ],
)
def test_rows_that_cannot_be_judged(folder: Path, row: Row, told: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        judged(Drawn("set", (row,)), LABELS, folder, max_tokens=8)
    assert caught.value.reason == "InvalidDataset"
    assert told in caught.value.message


def test_labels_of_words_are_not_for_a_classifier_of_texts() -> None:
    rows = Drawn("set", (Row("a n", word_labels=("O", "O"), line=3),))
    with pytest.raises(DeterministicError, match="line 3: has a label for each word; task Classification needs one"):
        check_kind(rows, Task.CLASSIFICATION)
    check_kind(rows, Task.EMBEDDING)
