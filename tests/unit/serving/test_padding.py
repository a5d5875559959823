"""Grouping by length: every text once, never wider than needed, never dearer than one padded batch."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from enginewright_serving.triton.padding import EXECUTION_COST_TOKENS, PAD_MULTIPLE, groups, padded

LENGTHS = st.lists(st.integers(0, 512), max_size=40)


def cost(lengths: list[int], split: list[list[int]]) -> int:
    return sum(EXECUTION_COST_TOKENS + len(group) * max(padded(lengths[i]) for i in group) for group in split)


@given(LENGTHS)
def test_every_text_is_in_exactly_one_group(lengths: list[int]) -> None:
    assert sorted(index for group in groups(lengths) for index in group) == list(range(len(lengths)))


@given(LENGTHS.filter(bool))
def test_never_dearer_than_together_or_apart(lengths: list[int]) -> None:
    best = cost(lengths, groups(lengths))
    assert best <= cost(lengths, [list(range(len(lengths)))])
    assert best <= cost(lengths, [[index] for index in range(len(lengths))])


@given(st.lists(st.integers(1, 200), min_size=1, max_size=7))
def test_no_split_of_the_sorted_texts_is_cheaper(lengths: list[int]) -> None:
    """Against trying all of them."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    cuts = range(1, len(order))
    every = (
        [order[a:b] for a, b in zip((0, *chosen), (*chosen, len(order)), strict=True)]
        for count in range(len(order))
        for chosen in combinations(cuts, count)
    )
    assert cost(lengths, groups(lengths)) == min(cost(lengths, split) for split in every)


def test_short_texts_do_not_wait_for_a_long_one() -> None:
    assert groups([10, 250, 12, 9, 11]) == [[0, 2, 3, 4], [1]]


def test_near_lengths_stay_together() -> None:
    assert groups([100, 104, 97]) == [[0, 1, 2]]
    assert groups([]) == []


@given(st.integers(0, 5000))
def test_padding_is_the_next_multiple(length: int) -> None:
    assert padded(length) % PAD_MULTIPLE == 0
    assert max(length, 1) <= padded(length) < max(length, 1) + PAD_MULTIPLE
