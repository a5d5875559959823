"""Rounds of generating: equal work counts equally, prompts are never repeated, servers take turns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Limits
from enginewright_builder.servers.generating import Generated
from enginewright_builder.speed.generating import MAX_ROUNDS, Round, Runs, Shape, measure, measurement, shapes_within

SHAPE = Shape(2, 16, 8)


def test_shapes_stay_within_the_limits() -> None:
    assert shapes_within(Limits()) == [Shape(1, 64, 32), Shape(8, 64, 32)]
    small = Limits(max_batch_size=4, max_input_tokens=32, max_output_tokens=16)
    assert shapes_within(small) == [Shape(1, 32, 16), Shape(4, 32, 16)]
    assert shapes_within(Limits(max_batch_size=1)) == [Shape(1, 64, 32)]


def test_both_get_the_same_fresh_prompts_in_turn() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def server(name: str, tokens: int):  # type: ignore[no-untyped-def]
        def generate(texts: Sequence[str], *, max_tokens: int) -> list[Generated]:
            asked.append((name, tuple(texts)))
            return [Generated(tokens, 0.01, 0.02)] * len(texts)

        return generate

    rounds = [[f"{number}a", f"{number}b"] for number in range(MAX_ROUNDS)]
    runs = measure(server("engine", 8), server("baseline", 8), rounds, SHAPE, seconds=0.0)
    assert [name for name, _ in asked[:6]] == ["baseline", "engine", "engine", "baseline", "baseline", "engine"]
    assert [texts for name, texts in asked if name == "engine"] == [texts for name, texts in asked if name != "engine"]
    assert len({texts for _, texts in asked}) == len(asked) / 2
    assert len(runs.engine) == len(runs.baseline) == len(asked) / 2 - 1, "the first round warms up"


def test_an_answer_that_ended_early_counts_as_if_it_had_gone_on() -> None:
    rounds = [["a", "b"]] * 5

    def half(texts: Sequence[str], *, max_tokens: int) -> list[Generated]:
        return [Generated(max_tokens // 2, 0.001, 0.002)] * len(texts)

    def full(texts: Sequence[str], *, max_tokens: int) -> list[Generated]:
        return [Generated(max_tokens, 0.001, 0.002)] * len(texts)

    runs = measure(half, full, rounds, SHAPE, seconds=0.0)
    assert all(one.seconds > 0 for one in (*runs.engine, *runs.baseline))
    nothing = [Generated(0, 0.0, 0.0)] * 2
    with pytest.raises(DeterministicError, match="generated no tokens"):
        measure(lambda texts, *, max_tokens: nothing, full, rounds, SHAPE, seconds=0.0)


def test_a_measurement_says_how_much_was_generated() -> None:
    runs = Runs((Round(0.5, 0.02), Round(0.6, 0.03), Round(0.4, 0.01)), (Round(2.0, 0.2),) * 3)
    found = measurement(runs, SHAPE)
    assert (found.batch_size, found.tokens, found.output_tokens) == (2, 16, 8)
    assert found.speedup == 4.0
    assert found.throughput_per_second == 4.0
    assert (found.first_token_milliseconds, found.baseline_first_token_milliseconds) == (20.0, 200.0)
