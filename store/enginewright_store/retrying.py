"""Repeats what failed for an outside reason, with growing pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from enginewright_api.errors import TransientError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Pauses double from `first_pause_seconds` up to `longest_pause_seconds`, with jitter of a half."""

    attempts: int = 4
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 5.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, operation: Callable[[], Result]) -> Result:
        """Result of `operation`; only TransientError is repeated, and the last one is raised."""
        pause = self.first_pause_seconds
        for _ in range(self.attempts - 1):
            try:
                return operation()
            except TransientError:
                self.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, self.longest_pause_seconds)
        return operation()
