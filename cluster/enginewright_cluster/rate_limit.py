"""A limit on requests a second: client-go's token bucket, so many a second on average and some more at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class RateLimit:
    """Turns in the order in which they are asked for. Times are those of the running event loop.

    Counted as a schedule (the generic cell rate algorithm): what is kept is when the bucket would be full again.
    """

    def __init__(self, per_second: float, burst: int, waited: Callable[[float], None] = lambda seconds: None) -> None:
        """`waited` is told of each turn that had to be waited for, and how long."""
        self._seconds_each = 1.0 / per_second
        self._burst = burst
        self._waited = waited
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for a turn. One that is cancelled meanwhile is lost, which only makes us slower."""
        seconds = self.reserve(asyncio.get_running_loop().time())
        if seconds > 0:
            await asyncio.sleep(seconds)
            self._waited(seconds)

    def reserve(self, now: float) -> float:
        """Take the next turn; seconds until it comes."""
        self._next = max(self._next, now - self._burst * self._seconds_each) + self._seconds_each
        return max(0.0, self._next - now)
