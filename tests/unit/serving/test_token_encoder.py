"""Scores of tokens: each text's own, in order, with the characters they stand for; padded only when given out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from enginewright_api.engine_description import TOKEN_LABELS, TOKEN_SCORES, TOKEN_SPANS
from enginewright_serving.triton.runner import Tensors
from enginewright_serving.triton.token_encoder import TokenEncoder
from tests.unit.serving.test_model_config import engine

EVERY = (TOKEN_SCORES, TOKEN_SPANS, TOKEN_LABELS, "tokens")


class Parity:
    """Scores of a token: how even and how odd its id is. Gives more places than asked for, as a fixed shape does."""

    def run(self, tensors: Tensors) -> npt.NDArray[np.float32]:
        ids = np.pad(tensors["input_ids"], ((0, 0), (0, 3)))
        return np.stack([ids * (ids % 2 == 0), ids * (ids % 2)], axis=2).astype(np.float32)


def encoder(max_tokens: int = 64) -> TokenEncoder:
    tokenizer = Tokenizer(
        WordLevel({"unknown": 0, **{str(n): n for n in range(1, 50)}, "[S]": 90}, unk_token="unknown")
    )
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[S] $A [S]", special_tokens=[("[S]", 90)])
    limits = {"maxBatchSize": 64, "maxInputTokens": max_tokens}
    described = engine(task="TokenClassification", outputDimension=2, labels=["even", "odd"], limits=limits)
    return TokenEncoder(described, tokenizer, Parity())


def test_texts_of_different_lengths_are_laid_side_by_side() -> None:
    answers = encoder().answer(["3  4", "", "é 5 6 7", "8 " * 30])
    found = answers.tensors(0, 3, EVERY)
    assert found[TOKEN_SCORES].tolist() == [
        [[0, 3], [4, 0], [0, 0], [0, 0]],
        [[0, 0], [0, 0], [0, 0], [0, 0]],
        [[0, 0], [0, 5], [6, 0], [0, 7]],
    ]
    assert found[TOKEN_SPANS].tolist() == [
        [[0, 1], [3, 4], [-1, -1], [-1, -1]],
        [[-1, -1], [-1, -1], [-1, -1], [-1, -1]],
        [[0, 1], [2, 3], [4, 5], [6, 7]],
    ]
    assert found[TOKEN_LABELS].tolist() == [[b"odd", b"even", b"", b""], [b""] * 4, [b"even", b"odd", b"even", b"odd"]]
    assert found["tokens"].tolist() == [[4], [2], [6]], "special tokens are run"
    assert answers.tensors(3, 4, EVERY)[TOKEN_SCORES].shape == (1, 30, 2), "another request is padded for itself"


def test_only_what_is_asked_for_is_given() -> None:
    answers = encoder().answer(["3 4"])
    assert set(answers.tensors(0, 1, [TOKEN_LABELS])) == {TOKEN_LABELS}
    assert set(answers.tensors(0, 1, EVERY)) == set(EVERY)


def test_a_text_without_tokens_has_one_place_of_padding() -> None:
    found = encoder().answer([""]).tensors(0, 1, EVERY)
    assert found[TOKEN_SPANS].tolist() == [[[-1, -1]]]
    assert found[TOKEN_SCORES].shape == (1, 1, 2)


def test_spans_end_where_the_engine_stops_reading() -> None:
    found = encoder(max_tokens=4).answer(["1 2 3 4 5"]).tensors(0, 1, EVERY)
    assert found[TOKEN_SPANS].tolist() == [[[0, 1], [2, 3]]]
    assert found["tokens"].tolist() == [[4]]
