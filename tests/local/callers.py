"""Clients that ask without pause, and an account of what they saw."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx


@dataclass(slots=True)
class Account:
    """What the clients of one gateway saw."""

    answered: int = 0
    slowest_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    first_failure_at: float | None = None
    last_failure_at: float | None = None

    def failed(self, what: str) -> None:
        """Note one failure."""
        now = time.monotonic()
        self.failures[what] += 1
        self.first_failure_at = now if self.first_failure_at is None else self.first_failure_at
        self.last_failure_at = now

    @property
    def outage_seconds(self) -> float:
        """From the first failure to the last."""
        if self.first_failure_at is None or self.last_failure_at is None:
            return 0.0
        return self.last_failure_at - self.first_failure_at

    def __str__(self) -> str:
        failures = ", ".join(f"{count} × {what}" for what, count in self.failures.items()) or "no failure"
        return (
            f"{self.answered} answered, slowest {self.slowest_seconds:.2f} s; {failures}"
            f" over {self.outage_seconds:.2f} s"
        )


@contextmanager
def calling(url: str, model: str, *, clients: int = 4, pause_seconds: float = 0.02) -> Iterator[Account]:
    """Ask over OpenAI's protocol from several threads until the block ends; requests under way are finished."""
    account, lock, stop = Account(), threading.Lock(), threading.Event()

    def work() -> None:
        with httpx.Client(timeout=120.0, trust_env=False) as client:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    answer = client.post(f"{url}/v1/embeddings", json={"model": model, "input": "are you there?"})
                    what = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:160]}"
                except httpx.HTTPError as error:
                    what = type(error).__name__
                with lock:
                    if what:
                        account.failed(what)
                    else:
                        account.answered += 1
                        account.slowest_seconds = max(account.slowest_seconds, time.monotonic() - began)
                stop.wait(pause_seconds)

    threads = [threading.Thread(target=work, name=f"caller-{number}") for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield account
    finally:
        stop.set()
        for thread in threads:
            thread.join()
