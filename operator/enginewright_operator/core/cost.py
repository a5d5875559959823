"""What the model costs: accelerator time of its builds, and a price for its tokens as the benchmark lets expect it."""

from __future__ import annotations

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.evidence import BenchmarkEvidence
from enginewright_api.optimized_model import CostStatus

from .draft import Draft

_SECONDS_AN_HOUR = 3600.0
_MILLION = 1e6


def cost(draft: Draft) -> CostStatus | None:
    """Cost of the ladder as it stands; None before there is one. The price needs that of the class."""
    old = draft.snapshot.status().cost
    if not draft.rungs:
        return old
    builds = [draft.snapshot.build(rung.build_name) for rung in draft.rungs]
    seconds = sum(build.status.resources.accelerator_seconds for build in builds if build is not None)
    observed = old.observed_per_million_tokens if old is not None else None
    spent = CostStatus(build_accelerator_seconds=round(seconds, 2), observed_per_million_tokens=observed)
    spec, accelerator, target = draft.spec, draft.accelerator_class, draft.target
    if spec is None or accelerator is None or accelerator.spec.cost is None or target is None:
        return spent
    count = spec.hardware.accelerators_per_replica
    predicted = per_million_tokens(target.measured.benchmark, accelerator, accelerators=count)
    update = {"predicted_per_million_tokens": predicted, "currency": accelerator.spec.cost.currency}
    return spent.model_copy(update=update) if predicted is not None else spent


def per_million_tokens(
    benchmark: BenchmarkEvidence, accelerator: AcceleratorClass, *, accelerators: int
) -> float | None:
    """Price of a million tokens on a replica that is busy all the time, at the best of the measured shapes."""
    price = accelerator.spec.cost
    tokens_a_second = max((row.throughput_per_second * row.tokens for row in benchmark.measurements), default=0.0)
    if price is None or tokens_a_second <= 0:
        return None
    return float(f"{price.per_hour * accelerators / (_SECONDS_AN_HOUR * tokens_a_second) * _MILLION:.4g}")
