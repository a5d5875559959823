"""What a recipe search is after, in one figure, and which results no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from enginewright_api.evidence import BenchmarkEvidence, QualityEvidence
from enginewright_api.optimization import Profile


@dataclass(frozen=True, slots=True)
class Result:
    """What one engine came to; each figure is better when it is larger."""

    gain: float
    """How many times better than the baseline on the goal."""
    quality: float
    """Upper bound of the drop, negated."""
    size: int
    """Bytes, negated."""

    @classmethod
    def of(cls, profile: Profile, quality: QualityEvidence, benchmark: BenchmarkEvidence) -> Result:
        """From evidence."""
        return cls(goal(profile, benchmark), -quality.drop_upper_bound, -benchmark.size_bytes)

    def dominates(self, other: Result) -> bool:
        """Nowhere worse and somewhere better."""
        mine, its = (self.gain, self.quality, self.size), (other.gain, other.quality, other.size)
        return mine != its and all(here >= there for here, there in zip(mine, its, strict=True))


def goal(profile: Profile, benchmark: BenchmarkEvidence) -> float:
    """How many times better than the baseline, measured beside it, so that engines timed hours apart compare.

    Latency: geometric mean of the ratios of median latencies at batch 1. Throughput: ratio of the best inputs a second.
    Size: ratio of the bytes.
    """
    if profile is Profile.SIZE:
        return benchmark.baseline_size_bytes / max(benchmark.size_bytes, 1)
    if profile is Profile.LATENCY:
        singles = [row.speedup for row in benchmark.measurements if row.batch_size == 1]
        if singles and all(ratio > 0 for ratio in singles):
            return exp(sum(map(log, singles)) / len(singles))
        return benchmark.speedup
    best = max((row.throughput_per_second for row in benchmark.measurements), default=0.0)
    baseline = max((row.baseline_throughput_per_second for row in benchmark.measurements), default=0.0)
    return best / baseline if baseline > 0 else benchmark.speedup


def pareto_front(results: Sequence[Result]) -> list[int]:
    """Places of the results that no other one dominates."""
    return [place for place, one in enumerate(results) if not any(other.dominates(one) for other in results)]
