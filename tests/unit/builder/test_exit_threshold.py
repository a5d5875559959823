"""The threshold of an early exit: how many may leave, and what is promised of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from enginewright_builder.compression.early_exit import Threshold, choose_threshold

ROWS = st.lists(st.tuples(st.floats(0.0, 6.0), st.booleans()), min_size=1, max_size=80)


def chosen(rows: list[tuple[float, bool]], wanted: float) -> tuple[Threshold, torch.Tensor, torch.Tensor]:
    """Rows are (how sure the head is of class 1, whether the model agrees); the head's softmax and who agrees."""
    scores = torch.tensor([[0.0, margin] for margin, _ in rows])
    said = scores.double().softmax(1).argmax(1)
    answers = torch.nn.functional.one_hot(torch.where(torch.tensor([agrees for _, agrees in rows]), said, 1 - said), 2)
    return choose_threshold(scores, answers.float(), wanted), scores.double().softmax(1).max(1).values, said


def test_as_many_leave_as_the_promise_allows() -> None:
    rows = [(6.0 - number / 50, True) for number in range(199)] + [(1.0, False), (0.5, True), (0.2, False)]
    found, sure, _ = chosen(rows, 0.99)
    assert found.share == pytest.approx(201 / 202)  # one of 201 is wrong; the last one would be the second
    assert found.agreement == pytest.approx(200 / 201)
    assert int((sure >= found.threshold).sum()) == 201


def test_few_rows_cannot_promise_much() -> None:
    assert chosen([(6.0, True)] * 8, 0.9)[0].share == 0.0
    assert chosen([(6.0, True)] * 10, 0.9)[0].share == 1.0


def test_nobody_leaves_where_the_surest_are_wrong() -> None:
    assert chosen([(6.0, False)] * 10 + [(1.0, True)] * 10, 0.9)[0].share == 0.0


@given(ROWS, st.floats(0.3, 0.99))
def test_who_leaves_keeps_the_promise(rows: list[tuple[float, bool]], wanted: float) -> None:
    found, sure, _ = chosen(rows, wanted)
    leaving = sure >= found.threshold
    if found.share:
        agreeing = torch.tensor([agrees for _, agrees in rows])[leaving]
        assert int(leaving.sum()) == round(found.share * len(rows))
        assert float(agreeing.double().mean()) == pytest.approx(found.agreement)
        assert found.agreement >= wanted
