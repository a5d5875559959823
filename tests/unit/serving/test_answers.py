"""An answer as it grows: what is sent together, and that nothing is lost by it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from enginewright_serving.triton.answers import Answer, Chunk, tokens_a_chunk
from enginewright_serving.triton.generation_runner import LENGTH, NewTokens
from enginewright_serving.triton.sampling import Sampling
from enginewright_serving.triton.token_text import TokenText
from tests.unit.serving.test_token_text import TOKENIZER

TEXT = "héllo, wörld"


@dataclass
class Kept:
    """A sender that keeps the chunks."""

    chunks: list[Chunk] = field(default_factory=list)

    def send(self, chunk: Chunk) -> None:
        """As `Sender`."""
        self.chunks.append(chunk)

    def fail(self, message: str) -> None:
        """As `Sender`."""
        raise AssertionError(message)

    def cancelled(self) -> bool:
        """As `Sender`."""
        return False


class Unmeasured:
    """Metrics that nobody reads."""

    def began(self, prompt_tokens: int, seconds: float) -> None:
        """As `Metrics`."""

    def generated(self, tokens: int) -> None:
        """As `Metrics`."""

    def ended(self, completion_tokens: int, seconds_after_first: float) -> None:
        """As `Metrics`."""


def answered(interval: int | None) -> list[Chunk]:
    """One byte a step."""
    kept, told = Kept(), list(TEXT.encode())
    answer = Answer(
        index=0, prompt=(1, 2), prompt_text="", prompt_logprobs=(), sampling=Sampling(max_tokens=len(told)),
        text=TokenText(TOKENIZER), stream_interval=None if interval is None else lambda: interval, began_seconds=0.0,
        sender=kept, metrics=Unmeasured(),
    )  # fmt: skip
    for at, token in enumerate(told, 1):
        assert answer.tokens(NewTokens(0, (token,), (), LENGTH if at == len(told) else ""), float(at))
    return kept.chunks


@pytest.mark.parametrize(
    ("interval", "counts"),
    [
        (1, [1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]),  # a character of two bytes comes whole
        (4, [1, 4, 4, 4, 1]),
        (64, [1, 13]),
        (None, [14]),
    ],
)
def test_tokens_come_in_chunks_of_the_interval(interval: int | None, counts: list[int]) -> None:
    chunks = answered(interval)
    assert [len(chunk.token_ids) for chunk in chunks] == counts
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert [chunk.completion_tokens for chunk in chunks] == [sum(counts[: at + 1]) for at in range(len(counts))]
    assert [chunk.finish_reason for chunk in chunks] == [""] * (len(chunks) - 1) + [LENGTH]


def test_few_answers_send_each_token_and_many_share_chunks() -> None:
    assert [tokens_a_chunk(answers) for answers in (0, 1, 4, 5, 8, 9, 12, 16, 17, 256)] == [
        1,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        4,
    ]
