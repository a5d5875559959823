"""Counters and levels over a sliding window: resets, gaps, and restarts of the one who counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Totals:
    """A vector of totals that only grow, unless the counting process restarts.

    A restart shows as any element falling: then what is counted since is all new, as in Prometheus' `increase`.
    """

    window_seconds: float
    shape: tuple[float, ...] = ()
    """What the elements are (bucket bounds)."""
    _points: deque[tuple[float, tuple[float, ...]]] = field(default_factory=deque)
    _last: tuple[float, ...] = ()

    def add(self, at: float, totals: Sequence[float], *, shape: tuple[float, ...] = ()) -> None:
        """Note the totals at a time; an empty vector is a series without any sample yet, so zeros of any shape."""
        new = tuple(totals)
        if self._points and at <= self._points[-1][0]:
            return
        if not self._last:
            self._points = deque((before, (0.0,) * len(new)) for before, _ in self._points)
            self._last = (0.0,) * len(new) if self._points else new
        elif shape != self.shape or len(new) != len(self._last):
            self._points.clear()
            self._last = new
        reset = any(now < before for now, before in zip(new, self._last, strict=True))
        steps = new if reset else tuple(now - before for now, before in zip(new, self._last, strict=True))
        base = self._points[-1][1] if self._points else (0.0,) * len(new)
        self._points.append((at, tuple(old + step for old, step in zip(base, steps, strict=True))))
        self._last, self.shape = new, shape
        while len(self._points) > 2 and self._points[1][0] <= at - self.window_seconds:
            self._points.popleft()

    @property
    def at(self) -> float | None:
        """When it was last told."""
        return self._points[-1][0] if self._points else None

    def grown(self) -> tuple[tuple[float, ...], float]:
        """(growth over the window, seconds it covers); no seconds before the second point."""
        if not self._points:
            return (), 0.0
        (start, before), (end, after) = self._points[0], self._points[-1]
        return tuple(new - old for new, old in zip(after, before, strict=True)), end - start


@dataclass(slots=True)
class Level:
    """A gauge over a window."""

    window_seconds: float
    _points: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, at: float, value: float) -> None:
        """Note the level at a time."""
        if self._points and at <= self._points[-1][0]:
            return
        self._points.append((at, value))
        while self._points[0][0] < at - self.window_seconds:
            self._points.popleft()

    @property
    def at(self) -> float | None:
        """When it was last told."""
        return self._points[-1][0] if self._points else None

    def mean(self, seconds: float) -> float:
        """Mean of the last seconds before the last point, so that one unlucky instant decides nothing."""
        end = self._points[-1][0]
        recent = [value for at, value in self._points if at > end - seconds]
        return sum(recent) / len(recent)

    def change(self) -> tuple[float, float]:
        """(last less first, seconds between) over the window."""
        (start, first), (end, last) = self._points[0], self._points[-1]
        return last - first, end - start
