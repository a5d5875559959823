"""Which batches are divided among the cores."""

from __future__ import annotations

import pytest

from enginewright_serving.triton.openvino_runner import parts


@pytest.mark.parametrize(
    ("batch", "tokens", "streams", "wanted"),
    [
        (32, 128, 2, [16, 16]),
        (33, 128, 2, [17, 16]),
        (8, 16, 4, [2, 2, 2, 2]),
        (23, 64, 8, [3] * 7 + [2]),
        (32, 128, 1, [32]),
        (32, 128, 0, [32]),
        (1, 512, 2, [1]),
        (4, 16, 2, [4]),  # too little to do
        (3, 128, 2, [3]),  # one core would wait for a third of the time
        (5, 128, 8, [5]),
        (17, 128, 16, [17]),
    ],
)
def test_batches_are_divided_where_it_pays(batch: int, tokens: int, streams: int, wanted: list[int]) -> None:
    assert parts(batch, tokens, streams) == wanted
    assert sum(wanted) == batch
