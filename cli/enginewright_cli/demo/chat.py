"""Chat with a served language model over OpenAI's API, as it streams."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from enginewright_api.errors import TransientError

QUESTIONS = ("What is the capital of France?", "Why is the sky blue? Answer in two sentences.")
_MAX_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Spoken:
    """One answer and how fast it came."""

    text: str
    tokens: int
    first_token_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """After the first token; 0 for answers of one."""
        after = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / after if self.tokens > 1 and after > 0 else 0.0


def ask(
    base_url: str,
    model: str,
    question: str,
    show: Callable[[str], None],
    *,
    max_tokens: int = _MAX_TOKENS,
    timeout_seconds: float = 120.0,
) -> Spoken:
    """Stream an answer; `show` gets each piece of text. TransientError when it does not come or breaks off."""
    url = f"{base_url}/v1/chat/completions"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first, text, tokens, done = time.monotonic(), 0.0, "", 0, False
    try:
        with httpx.stream("POST", url, json=body, timeout=timeout_seconds, trust_env=False) as response:
            if response.status_code != 200:
                response.read()
                raise TransientError("NoAnswer", f"{url}: {response.status_code} {response.text[:300]}")
            for line in response.iter_lines():
                if not line.startswith("data: "):
                    continue
                if line == "data: [DONE]":
                    done = True
                    break
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise TransientError("NoAnswer", f"{url}: {event['error']['message']}")
                if event.get("usage"):
                    tokens = int(event["usage"]["completion_tokens"])
                for choice in event["choices"]:
                    piece = choice["delta"].get("content") or ""
                    if piece:
                        first = first or time.monotonic() - began
                        text += piece
                        show(piece)
    except httpx.HTTPError as error:
        raise TransientError("NoAnswer", f"{url}: {error or type(error).__name__}") from error
    if not done:
        raise TransientError("NoAnswer", f"{url}: the answer broke off")
    return Spoken(text, tokens, first, time.monotonic() - began)
