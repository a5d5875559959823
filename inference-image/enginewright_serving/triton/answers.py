"""One answer as it grows: tokens in, chunks of text out, and what it measured about itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from enginewright_serving.triton.generation_runner import LENGTH, STOP, NewTokens
from enginewright_serving.triton.sampling import Sampling
from enginewright_serving.triton.token_text import TokenText

UNKNOWN_TOKENS = -1
"""`cached_tokens` where the runtime does not tell how much of a prompt it found in its cache."""

_CHUNKS_A_STEP = 4
"""Chunks worth sending after a step: one takes about 0.3 ms of the processors that compute the next step."""

_LONGEST_CHUNK_TOKENS = 4
"""Texts that come in larger lumps read badly."""


def tokens_a_chunk(answers: int) -> int:
    """Tokens that a streamed answer sends together while so many answers are under way, where nobody said how many."""
    return min(_LONGEST_CHUNK_TOKENS, max(1, math.ceil(answers / _CHUNKS_A_STEP)))


@dataclass(frozen=True, slots=True)
class Chunk:
    """One response: what came since the last one, or all of it when nothing is streamed."""

    index: int
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    token_ids: tuple[int, ...]
    with_logprobs: bool
    logprobs: tuple[float, ...]


class Sender(Protocol):
    """Where chunks go."""

    def send(self, chunk: Chunk) -> None: ...

    def fail(self, message: str) -> None: ...

    def cancelled(self) -> bool: ...


class Metrics(Protocol):
    """Where measurements go."""

    def began(self, prompt_tokens: int, seconds: float) -> None: ...

    def generated(self, tokens: int) -> None: ...

    def ended(self, completion_tokens: int, seconds_after_first: float) -> None: ...


@dataclass(slots=True)
class Answer:
    """Implements generation_engine.Answer."""

    index: int
    prompt: Sequence[int]
    prompt_text: str
    """What an echo begins with."""
    prompt_logprobs: tuple[float, ...]
    """Of each prompt token, for an echo."""
    sampling: Sampling
    text: TokenText
    stream_interval: Callable[[], int] | None
    """Tokens in a chunk after the first, which comes as soon as it has text; None sends the answer whole."""
    began_seconds: float
    sender: Sender
    metrics: Metrics
    _shown: str = ""
    _begun: bool = False
    """Whether a chunk was sent."""
    _token_ids: list[int] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)
    _completion_tokens: int = 0
    _first_seconds: float | None = None
    _last_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.prompt_logprobs:
            self._shown = self.prompt_text
            self._token_ids = list(self.prompt)
            self._logprobs = list(self.prompt_logprobs)

    def scored(self) -> None:
        """The prompt alone was asked for."""
        self._send(LENGTH)

    def tokens(self, news: NewTokens, at_seconds: float) -> bool:
        """Take tokens. False when a stop string ended the answer."""
        if self._first_seconds is None:
            self._first_seconds = at_seconds
            self.metrics.began(len(self.prompt), at_seconds - self.began_seconds)
        self._last_seconds = at_seconds
        self._completion_tokens += len(news.token_ids)
        self.metrics.generated(len(news.token_ids))
        self._token_ids += news.token_ids
        self._logprobs += news.logprobs
        self._shown += self.text.add([token for token in news.token_ids if token not in self.sampling.eos_token_ids])
        finish_reason = news.finish_reason
        if finish_reason:
            self._shown += self.text.end()
        if self.text.stopped:
            finish_reason = STOP
        if finish_reason:
            self._measure()
        if finish_reason or (self._shown and self._due()):
            self._send(finish_reason)
        return not self.text.stopped

    def _due(self) -> bool:
        """Whether what came since the last chunk makes one."""
        if self.stream_interval is None:
            return False
        return not self._begun or len(self._token_ids) >= self.stream_interval()

    def failed(self, message: str) -> None:
        """The engine cannot go on."""
        self._measure()
        self.sender.fail(message)

    def left(self) -> bool:
        """Whether the client left."""
        if not self.sender.cancelled():
            return False
        self._measure()
        return True

    def _measure(self) -> None:
        if self._first_seconds is not None:
            self.metrics.ended(self._completion_tokens, self._last_seconds - self._first_seconds)

    def _send(self, finish_reason: str) -> None:
        self.sender.send(
            Chunk(
                index=self.index,
                text=self._shown,
                finish_reason=finish_reason,
                prompt_tokens=len(self.prompt),
                completion_tokens=self._completion_tokens,
                cached_tokens=UNKNOWN_TOKENS,
                token_ids=tuple(self._token_ids),
                with_logprobs=self.sampling.logprobs,
                logprobs=tuple(self._logprobs),
            )
        )
        self._shown, self._begun = "", True
        self._token_ids, self._logprobs = [], []
