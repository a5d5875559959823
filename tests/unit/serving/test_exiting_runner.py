"""Who leaves, who goes on, and that every row keeps its place."""

from __future__ import annotations

import numpy as np
import pytest

from enginewright_serving.triton.exiting_runner import ExitingRunner, confidence
from enginewright_serving.triton.runner import Tensors, Vectors


class Identity:
    """First layers: a token's state is its id."""

    def run(self, tensors: Tensors) -> Vectors:
        return tensors["input_ids"][:, :, None].astype(np.float32)


class FirstToken:
    """A head whose score of class 1 is the first token's state."""

    def run(self, tensors: Tensors) -> Vectors:
        first = tensors["hidden_states"][:, 0, 0]
        return np.stack([np.zeros_like(first), first], axis=1)


class Rest:
    """Says -100 for class 0 and the sum of the row's states for class 1."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, tensors: Tensors) -> Vectors:
        assert tensors["hidden_states"].flags.c_contiguous
        self.shapes.append(tensors["attention_mask"].shape)
        sums = (tensors["hidden_states"][:, :, 0] * tensors["attention_mask"]).sum(1)
        return np.stack([np.full_like(sums, -100), sums], axis=1)


def run(rows: list[list[int]], threshold: float, width: int = 24) -> tuple[Vectors, Rest, ExitingRunner]:
    ids = np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)
    rest = Rest()
    runner = ExitingRunner(Identity(), FirstToken(), rest, threshold)
    return runner.run({"input_ids": ids, "attention_mask": mask}), rest, runner


def test_the_sure_leave_and_the_others_go_on_each_in_its_place() -> None:
    scores, rest, runner = run([[9, 1], [1, 2, 3], [8], [0, 5]], 0.99)
    assert scores.tolist() == [[0, 9], [-100, 6], [0, 8], [-100, 5]]
    assert (runner.rows, runner.exits) == (4, 2)
    assert rest.shapes == [(2, 8)], "what is left is padded to its own longest text"


@pytest.mark.parametrize(("threshold", "exits"), [(1.0, 0), (0.4, 3)])
def test_none_and_all_may_leave(threshold: float, exits: int) -> None:
    scores, rest, runner = run([[3], [1], [2, 2]], threshold)
    assert runner.exits == exits
    assert rest.shapes == ([(3, 8)] if exits == 0 else [])
    assert scores[:, 1].tolist() == ([3, 1, 4] if exits == 0 else [3, 1, 2])


def test_a_single_row_answers_as_in_a_batch() -> None:
    rows = [[9, 1], [1, 2, 3], [8], [0, 5]]
    together = run(rows, 0.99)[0]
    alone = np.concatenate([run([row], 0.99)[0] for row in rows])
    assert alone.tolist() == together.tolist()


def test_confidence_is_the_largest_softmax_probability() -> None:
    found = confidence(np.array([[0, 0], [1000, 0], [0, np.log(3)]], np.float32))
    assert found.tolist() == pytest.approx([0.5, 1.0, 0.75])
