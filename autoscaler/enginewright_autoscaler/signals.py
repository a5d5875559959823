"""From scrapes of all gateways to one model's figures, each with the time it was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from enginewright_autoscaler.exposition import Counter, Gauge, Latency, ModelSample, Scrape
from enginewright_autoscaler.policy import Distribution, Figure
from enginewright_autoscaler.series import Level, Totals

_S = TypeVar("_S", Level, Totals)
LEVEL_SECONDS = 5.0
LATENCY_SECONDS = 30.0


@dataclass(slots=True)
class _Series:
    """What one gateway said about one model."""

    gauges: dict[Gauge, Level]
    counters: dict[Counter, Totals]
    latencies: dict[Latency, Totals]

    def add(self, at: float, sample: ModelSample, declared: frozenset[Latency]) -> None:
        for gauge, value in sample.gauges.items():
            self.gauges[gauge].add(at, value)
        if not sample.gauges:
            # Only a gateway that serves the model tells its levels; without them an absent counter is not a zero.
            return
        for counter, totals in self.counters.items():
            if counter not in sample.broken:
                totals.add(at, [sample.counters.get(counter, 0.0)])
        for latency in declared - sample.broken:
            buckets = sample.latencies.get(latency)
            if buckets is None:
                self.latencies[latency].add(at, [])
            else:
                self.latencies[latency].add(at, [*buckets.cumulative, buckets.sum_seconds], shape=buckets.bounds)


@dataclass(slots=True)
class _Gateway:
    listed_at: float
    models: dict[str, _Series] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Traffic:
    """One model's traffic over all gateways, with the names of the policy's observation."""

    waiting: Figure | None = None
    running: Figure | None = None
    arrivals_per_second: Figure | None = None
    completions_per_second: Figure | None = None
    prompt_tokens_per_second: Figure | None = None
    output_tokens_per_second: Figure | None = None
    request_latency: Distribution | None = None
    time_to_first_token: Distribution | None = None
    time_between_tokens: Distribution | None = None


class Signals:
    """Memory of scrapes. Times are seconds on the caller's clock."""

    def __init__(self, *, rate_seconds: float = 10.0) -> None:
        self._rate_seconds = rate_seconds
        self._gateways: dict[str, _Gateway] = {}

    def expect(self, gateways: Iterable[str], now: float) -> None:
        """These gateways exist. What an unknown one would say is missing since now; one that is gone says nothing."""
        wanted = set(gateways)
        self._gateways = {url: seen for url, seen in self._gateways.items() if url in wanted}
        for url in wanted - self._gateways.keys():
            self._gateways[url] = _Gateway(listed_at=now)

    def add(self, gateway: str, scrape: Scrape, at: float) -> None:
        """Take in what a gateway that is expected answered."""
        known = self._gateways.get(gateway)
        if known is None:
            return
        # A model that is gone from the answer keeps its series, which age.
        for model, sample in scrape.models.items():
            series = known.models.get(model)
            if series is None:
                series = known.models[model] = self._series()
            series.add(at, sample, scrape.declared)

    def forget(self, models: Iterable[str]) -> None:
        """Drop all models but these."""
        kept = set(models)
        for gateway in self._gateways.values():
            gateway.models = {model: series for model, series in gateway.models.items() if model in kept}

    def traffic(self, model: str) -> Traffic:
        """The sum over all gateways. A figure is as old as its oldest part; None when no gateway told it."""
        ended = self._rate(model, Counter.ENDED)
        return Traffic(
            waiting=self._level(model, Gauge.WAITING),
            running=self._level(model, Gauge.RUNNING),
            arrivals_per_second=self._arrivals(model, ended),
            completions_per_second=self._rate(model, Counter.SUCCEEDED),
            prompt_tokens_per_second=self._rate(model, Counter.PROMPT_TOKENS),
            output_tokens_per_second=self._rate(model, Counter.OUTPUT_TOKENS),
            request_latency=self._distribution(model, Latency.REQUEST),
            time_to_first_token=self._distribution(model, Latency.FIRST_TOKEN),
            time_between_tokens=self._distribution(model, Latency.BETWEEN_TOKENS),
        )

    def _series(self) -> _Series:
        return _Series(
            {gauge: Level(self._rate_seconds) for gauge in Gauge},
            {counter: Totals(self._rate_seconds) for counter in Counter},
            {latency: Totals(LATENCY_SECONDS) for latency in Latency},
        )

    def _level(self, model: str, gauge: Gauge) -> Figure | None:
        levels, at = self._told(model, lambda series: series.gauges[gauge])
        return None if at is None else Figure(sum(level.mean(LEVEL_SECONDS) for level in levels), at)

    def _rate(self, model: str, counter: Counter) -> Figure | None:
        totals, at = self._told(model, lambda series: series.counters[counter])
        rates = [growth[0] / seconds for growth, seconds in map(Totals.grown, totals) if seconds > 0]
        return None if at is None or not rates else Figure(sum(rates), at)

    def _arrivals(self, model: str, ended: Figure | None) -> Figure | None:
        """What ended, and what has come in since and is still here."""
        if ended is None:
            return None
        waiting, _ = self._told(model, lambda series: series.gauges[Gauge.WAITING])
        running, _ = self._told(model, lambda series: series.gauges[Gauge.RUNNING])
        changes = [level.change() for level in (*waiting, *running)]
        piled_up = sum(change / seconds for change, seconds in changes if seconds > 0)
        return Figure(max(0.0, ended.value + piled_up), ended.at_seconds)

    def _distribution(self, model: str, latency: Latency) -> Distribution | None:
        totals, at = self._told(model, lambda series: series.latencies[latency])
        if at is None:
            return None
        shapes = [each.shape for each in totals if each.shape]
        # Cumulative counts at the bounds that all gateways share are exact; no bucket is split.
        bounds = tuple(bound for bound in (shapes[0] if shapes else (math.inf,)) if all(bound in s for s in shapes))
        counts, total_seconds, window = [0.0] * len(bounds), 0.0, 0.0
        for each in totals:
            growth, seconds = each.grown()
            window = max(window, seconds)
            if each.shape:
                at_bound = dict(zip(each.shape, growth, strict=False))
                counts = [count + at_bound[bound] for count, bound in zip(counts, bounds, strict=True)]
                total_seconds += growth[-1]
        return Distribution(bounds, tuple(counts), total_seconds, window, at)

    def _told(self, model: str, pick: Callable[[_Series], _S]) -> tuple[list[_S], float | None]:
        """The parts that were told and the time of the oldest; a part never told is missing since its gateway came.

        No time when no gateway told anything: that is not zero.
        """
        parts: list[_S] = []
        times: list[float] = []
        for gateway in self._gateways.values():
            series = gateway.models.get(model)
            part = None if series is None else pick(series)
            if part is None or part.at is None:
                times.append(gateway.listed_at)
            else:
                parts.append(part)
                times.append(part.at)
        return parts, min(times) if parts else None
