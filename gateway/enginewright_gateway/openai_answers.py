"""Generated text in OpenAI's shapes: whole answers and the chunks of a stream, for both endpoints."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from .generating import Chunk

DONE = b"data: [DONE]\n\n"


def event(body: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


@dataclass(slots=True)
class Usage:
    """Tokens of a request: each prompt once, all its answers."""

    prompt: dict[int, int] = field(default_factory=dict)
    completion: dict[tuple[int, int], int] = field(default_factory=dict)
    cached: dict[int, int] = field(default_factory=dict)

    def add(self, prompt: int, chunk: Chunk) -> None:
        """Note a chunk of the prompt with this number."""
        self.prompt[prompt] = chunk.prompt_tokens
        self.completion[prompt, chunk.index] = chunk.completion_tokens
        if chunk.cached_tokens >= 0:
            self.cached[prompt] = chunk.cached_tokens

    def body(self) -> dict[str, Any]:
        """`usage`. Cached tokens are left out where the server does not know them."""
        prompt, completion = sum(self.prompt.values()), sum(self.completion.values())
        body: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        if self.cached:
            body["prompt_tokens_details"] = {"cached_tokens": sum(self.cached.values())}
        return body


class Shape(Protocol):
    """How one endpoint writes what was generated."""

    whole: str
    """`object` of a whole answer."""
    part: str
    """`object` of a chunk."""
    prefix: str
    """Beginning of its ids."""

    def begin(self, index: int) -> dict[str, Any] | None:
        """Choice of the event before the first text of an answer; None where there is none."""
        ...

    def delta(self, index: int, chunk: Chunk, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """Choice of an event."""
        ...

    def choice(self, index: int, text: str, finish_reason: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """Choice of a whole answer."""
        ...

    def logprobs(self, chunks: Sequence[Chunk], offset: int) -> dict[str, Any]:
        """Log-probabilities of chunks; `offset` is the length of the answer's text before them."""
        ...


class ChatShape:
    """/v1/chat/completions."""

    whole, part, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def begin(self, index: int) -> dict[str, Any] | None:
        """The role comes first."""
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def delta(self, index: int, chunk: Chunk, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """Text as it comes."""
        delta = {"content": chunk.text} if chunk.text else {}
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": chunk.finish_reason or None}

    def choice(self, index: int, text: str, finish_reason: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """One message."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}

    def logprobs(self, chunks: Sequence[Chunk], offset: int) -> dict[str, Any]:
        """One entry a token; tokens that are no text, as the end of an answer, are left out."""
        content = [
            {"token": token.decode(errors="replace"), "logprob": logprob, "bytes": list(token), "top_logprobs": []}
            for chunk in chunks
            for token, logprob in zip(chunk.token_bytes, chunk.logprobs, strict=True)
            if token
        ]
        return {"content": content, "refusal": None}


class CompletionShape:
    """/v1/completions."""

    whole, part, prefix = "text_completion", "text_completion", "cmpl-"

    def begin(self, index: int) -> dict[str, Any] | None:
        """Nothing comes before the text."""
        return None

    def delta(self, index: int, chunk: Chunk, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """Text as it comes."""
        return self.choice(index, chunk.text, chunk.finish_reason, logprobs)

    def choice(self, index: int, text: str, finish_reason: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """One text."""
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason or None}

    def logprobs(self, chunks: Sequence[Chunk], offset: int) -> dict[str, Any]:
        """Parallel lists, one entry a token."""
        tokens, values, offsets = list[str](), list[float](), list[int]()
        for chunk in chunks:
            for token, logprob in zip(chunk.token_bytes, chunk.logprobs, strict=True):
                if token:
                    tokens.append(token.decode(errors="replace"))
                    values.append(logprob)
                    offsets.append(offset)
                    offset += len(tokens[-1])
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": offsets}


class Writer:
    """Writes one request's answer or stream."""

    def __init__(self, shape: Shape, model: str, *, with_logprobs: bool, include_usage: bool = False) -> None:
        self._shape = shape
        self._head = {"id": shape.prefix + secrets.token_hex(12), "created": int(time.time()), "model": model}
        self._with_logprobs = with_logprobs
        self._include_usage = include_usage
        self._written: dict[int, int] = {}
        self.usage = Usage()

    def events(self, index: int, chunk: Chunk) -> bytes:
        """Events of a chunk of the answer with this number."""
        events = b""
        if index not in self._written:
            self._written[index] = 0
            first = self._shape.begin(index)
            events = b"" if first is None else self._event([first])
        logprobs = self._shape.logprobs([chunk], self._written[index]) if self._with_logprobs else None
        self._written[index] += len(chunk.text)
        return events + self._event([self._shape.delta(index, chunk, logprobs)])

    def last(self) -> bytes:
        """What ends a stream that went well."""
        if not self._include_usage:
            return DONE
        return event({**self._head, "object": self._shape.part, "choices": [], "usage": self.usage.body()}) + DONE

    def whole(self, answers: Sequence[Sequence[Chunk]]) -> bytes:
        """Body of an answer that is not streamed: the chunks of each choice."""
        choices = [
            self._shape.choice(
                index,
                "".join(chunk.text for chunk in chunks),
                chunks[-1].finish_reason,
                self._shape.logprobs(chunks, 0) if self._with_logprobs else None,
            )
            for index, chunks in enumerate(answers)
        ]
        return orjson.dumps({**self._head, "object": self._shape.whole, "choices": choices, "usage": self.usage.body()})

    def _event(self, choices: list[dict[str, Any]]) -> bytes:
        body = {**self._head, "object": self._shape.part, "choices": choices}
        return event({**body, "usage": None} if self._include_usage else body)
