"""How fast a model's requests are answered: the source of Retry-After."""

from __future__ import annotations

import math

_WINDOW_SECONDS = 10.0


class DrainRate:
    """Completions a second, averaged with exponential decay, so that it needs two numbers and no history."""

    def __init__(self) -> None:
        self._count = 0.0
        self._at = 0.0
        self._since: float | None = None

    def note(self, now: float) -> None:
        """One request was answered at `now` (seconds, monotonic)."""
        self._count = self._decayed(now) + 1.0
        self._at = now
        if self._since is None:
            self._since = now

    def per_second(self, now: float) -> float:
        """Completions a second at `now`; 0 before the first."""
        if self._since is None:
            return 0.0
        # A young average has seen less than its window: divide by what it has seen.
        seen = _WINDOW_SECONDS * (1.0 - math.exp(-(now - self._since) / _WINDOW_SECONDS))
        return self._decayed(now) / max(seen, 1.0)

    def _decayed(self, now: float) -> float:
        return self._count * math.exp(-(now - self._at) / _WINDOW_SECONDS)


def retry_after_seconds(waiting: int, per_second: float) -> float:
    """When the queue ahead will be gone at this rate: 1 to 60 seconds; 5 while nothing was ever answered."""
    if per_second <= 0.0:
        return 5.0
    return min(60.0, max(1.0, (waiting + 1) / per_second))
