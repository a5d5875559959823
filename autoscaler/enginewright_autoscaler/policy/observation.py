"""What the policy sees: figures with the time they were measured, never bare numbers."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `at_seconds` is on the clock that gives `now`; the age is `now - at_seconds`."""

    value: float
    at_seconds: float

    def age_seconds(self, now: float) -> float:
        """Negative for a figure from the future."""
        return now - self.at_seconds


@dataclass(frozen=True, slots=True)
class Distribution:
    """Latencies of the requests that ended in a window, as a cumulative histogram.

    `upper_bounds_seconds` ascend and end with infinity; `cumulative[i]` requests took at most
    `upper_bounds_seconds[i]`.
    """

    upper_bounds_seconds: tuple[float, ...]
    cumulative: tuple[float, ...]
    sum_seconds: float
    window_seconds: float
    at_seconds: float

    @property
    def count(self) -> float:
        """Requests in the window."""
        return self.cumulative[-1] if self.cumulative else 0.0

    @property
    def mean_concurrency(self) -> float:
        """Requests in the system on average over the window, by Little's law."""
        return self.sum_seconds / self.window_seconds if self.window_seconds > 0 else 0.0

    @property
    def usable(self) -> bool:
        """Whether it is a histogram at all: finite, ascending, cumulative."""
        numbers = (*self.cumulative, self.sum_seconds, self.window_seconds, self.at_seconds)
        return (
            len(self.upper_bounds_seconds) == len(self.cumulative) > 0
            and all(math.isfinite(number) and number >= 0 for number in numbers)
            and self.upper_bounds_seconds[-1] == math.inf
            and all(low < high for low, high in pairwise(self.upper_bounds_seconds))
            and all(low <= high for low, high in pairwise(self.cumulative))
        )

    def age_seconds(self, now: float) -> float:
        """Negative for a histogram from the future."""
        return now - self.at_seconds

    def share_within(self, seconds: float) -> float:
        """Share of requests that took at most `seconds`, linear inside a bucket; 1.0 for an empty window.

        Requests above the last finite bound count as slower than anything.
        """
        if self.count == 0:
            return 1.0
        index = bisect_left(self.upper_bounds_seconds, seconds)
        low_bound, low_count = self._edge(index - 1)
        high_bound, high_count = self._edge(index)
        if math.isinf(high_bound):
            return low_count / self.count
        share = (seconds - low_bound) / (high_bound - low_bound)
        return (low_count + share * (high_count - low_count)) / self.count

    def quantile(self, share: float) -> float:
        """Latency that `share` of the requests kept, linear inside a bucket; the last finite bound at most."""
        wanted = share * self.count
        for index, high_count in enumerate(self.cumulative):
            if high_count >= wanted and high_count > 0:
                low_bound, low_count = self._edge(index - 1)
                high_bound = self.upper_bounds_seconds[index]
                if math.isinf(high_bound):
                    return low_bound
                return low_bound + (high_bound - low_bound) * (wanted - low_count) / (high_count - low_count)
        return 0.0

    def _edge(self, index: int) -> tuple[float, float]:
        return (self.upper_bounds_seconds[index], self.cumulative[index]) if index >= 0 else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Pending:
    """Replicas that no node has room for."""

    count: int
    since_seconds: float
    message: str
    """What is missing, in the scheduler's words."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything `decide` may look at. None means that nothing was measured; it never means zero.

    Counts of requests are means over a few seconds, rates are over the collector's window.
    """

    current_replicas: int
    """spec.replicas, the number last asked for."""
    ready: Figure | None = None
    starting: Figure | None = None
    waiting: Figure | None = None
    """Requests held in the gateways."""
    running: Figure | None = None
    """Requests sent to a replica and not answered."""
    arrivals_per_second: Figure | None = None
    completions_per_second: Figure | None = None
    prompt_tokens_per_second: Figure | None = None
    output_tokens_per_second: Figure | None = None
    request_latency: Distribution | None = None
    time_to_first_token: Distribution | None = None
    time_between_tokens: Distribution | None = None
    pending: Pending | None = None
