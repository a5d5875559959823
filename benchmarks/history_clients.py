"""Clients that ask a model without pause and keep everything that they saw."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import numpy as np

from benchmarks.history_checker import Asked, Vector

ANSWER_SECONDS = 120.0
"""What waits longer has failed."""


def ask(client: httpx.Client, url: str, model: str, text: str) -> Asked:
    """One request over OpenAI's protocol."""
    sent = time.monotonic()
    try:
        answer = client.post(f"{url}/v1/embeddings", json={"model": model, "input": text})
    except httpx.HTTPError as error:
        return Asked(sent, time.monotonic(), text, failure=type(error).__name__)
    ended = time.monotonic()
    if answer.status_code != 200:
        return Asked(sent, ended, text, failure=str(answer.status_code))
    return Asked(sent, ended, text, np.array(answer.json()["data"][0]["embedding"], dtype=np.float32))


@contextmanager
def asking(
    url: str, model: str, texts: Sequence[str], *, clients: int, pause_seconds: float = 0.02
) -> Iterator[list[Asked]]:
    """Ask from several threads until the block ends; requests under way are finished. The list grows meanwhile."""
    history: list[Asked] = []
    stop = threading.Event()

    def work(number: int) -> None:
        draw = random.Random(number)  # noqa: S311 - which text is next, not a secret
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False) as client:
            while not stop.is_set():
                history.append(ask(client, url, model, draw.choice(texts)))
                stop.wait(pause_seconds)

    threads = [threading.Thread(target=work, args=(number,), name=f"client-{number}") for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield history
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def sampled(history: Sequence[Asked], *, apart: float = 1e-5) -> dict[str, list[Vector]]:
    """The different answers to each text; those nearer than `apart` count as one. Raises ValueError for a failure."""
    found: dict[str, list[Vector]] = {}
    for asked in history:
        if asked.vector is None:
            raise ValueError(f"no reference can be made from a failure: {asked.failure}")
        known = found.setdefault(asked.text, [])
        if all(np.abs(asked.vector - other).max() > apart for other in known):
            known.append(asked.vector)
    return found
