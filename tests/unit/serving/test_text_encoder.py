"""Tokenising, padding and order, with a runner that shows what it was given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from enginewright_serving.triton.runner import Tensors
from enginewright_serving.triton.text_encoder import TextEncoder
from tests.unit.serving.test_model_config import engine


class Summing:
    """Vector of a text: the sum of its unmasked ids, and its length."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.segments: list[list[list[int]]] = []

    def run(self, tensors: Tensors) -> npt.NDArray[np.float32]:
        input_ids, attention_mask = tensors["input_ids"], tensors["attention_mask"]
        self.shapes.append(input_ids.shape)
        self.segments.append(tensors.get("token_type_ids", np.zeros((0, 0))).tolist())
        assert (input_ids[attention_mask == 0] == 99).all()
        both = [(input_ids * attention_mask).sum(1), attention_mask.sum(1)]
        return np.stack(both, axis=1).astype(np.float32)


def encoder(runner: Summing, max_tokens: int) -> TextEncoder:
    tokenizer = Tokenizer(WordLevel({"unknown": 0, **{str(n): n for n in range(1, 50)}}, unk_token="unknown"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    limits = {"maxBatchSize": 64, "maxInputTokens": max_tokens}
    return TextEncoder(engine(outputDimension=2, padTokenId=99, limits=limits), tokenizer, runner)


def test_answers_come_in_the_order_of_the_texts() -> None:
    runner = Summing()
    texts = ["1 2 3", "7 " * 200, "", "40", "5 " * 190]
    vectors, counts = encoder(runner, 256).encode(texts)
    assert vectors.tolist() == [[6, 3], [1400, 200], [0, 0], [40, 1], [950, 190]]
    assert counts.tolist() == [3, 200, 0, 1, 190]
    assert counts.dtype == np.int32
    assert runner.shapes == [(3, 8), (2, 200)]


def test_long_texts_are_cut_and_never_padded_over_the_limit() -> None:
    runner = Summing()
    vectors, counts = encoder(runner, 13).encode(["3 " * 100])
    assert (vectors.tolist(), counts.tolist(), runner.shapes) == ([[39, 13]], [13], [(1, 13)])


def test_pairs_keep_their_order_and_say_which_tokens_are_the_second_text() -> None:
    runner = Summing()
    vectors, counts = encoder(runner, 256).encode([("1 2", "3"), ("4", "5 6 7")])
    assert (vectors.tolist(), counts.tolist()) == ([[6, 3], [22, 4]], [3, 4])
    assert runner.segments == [[[0, 0, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]]]
