"""A gateway's Prometheus text, as far as the autoscaler reads it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from enginewright_api import metrics as names
from enginewright_api.errors import TransientError


class Gauge(StrEnum):
    """Levels that are read."""

    WAITING = names.QUEUE_DEPTH
    RUNNING = names.INFLIGHT


class Counter(StrEnum):
    """Totals that are read, summed over the labels that are not told apart."""

    ENDED = "ended requests"
    SUCCEEDED = "succeeded requests"
    PROMPT_TOKENS = "prompt tokens"
    OUTPUT_TOKENS = "output tokens"


class Latency(StrEnum):
    """Histograms that are read."""

    REQUEST = names.REQUEST_SECONDS
    FIRST_TOKEN = names.TIME_TO_FIRST_TOKEN_SECONDS
    BETWEEN_TOKENS = names.INTER_TOKEN_SECONDS


_TOKEN_KINDS = {"prompt": Counter.PROMPT_TOKENS, "completion": Counter.OUTPUT_TOKENS}


@dataclass(frozen=True, slots=True)
class Buckets:
    """A cumulative histogram since the gateway started: bounds ascend and end with infinity."""

    bounds: tuple[float, ...]
    cumulative: tuple[float, ...]
    sum_seconds: float


@dataclass(frozen=True, slots=True)
class ModelSample:
    """What one scrape says about one model. A figure that is absent, broken or ambiguous is left out."""

    gauges: Mapping[Gauge, float] = field(default_factory=dict)
    counters: Mapping[Counter, float] = field(default_factory=dict)
    latencies: Mapping[Latency, Buckets] = field(default_factory=dict)
    broken: frozenset[Gauge | Counter | Latency] = frozenset()
    """Figures that were there and cannot be used."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of a gateway. `declared` tells an empty histogram from one that this gateway does not have."""

    models: Mapping[str, ModelSample]
    declared: frozenset[Latency]


class _Lines:
    """Values of one model by (metric, labels)."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.broken: set[str] = set()

    def add(self, sample: Sample) -> None:
        """Keep a value; NaN, infinity, a negative value or two values for one series break the whole metric."""
        metric = _stem(sample.name)
        key = (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if k != "model")))
        if not math.isfinite(sample.value) or sample.value < 0 or self.values.get(key, sample.value) != sample.value:
            self.broken.add(metric)
        self.values[key] = sample.value


def parse(text: str) -> Scrape:
    """Read a whole exposition. Raises TransientError where the text is malformed: half a scrape is no scrape."""
    models: dict[str, _Lines] = defaultdict(_Lines)
    declared: set[Latency] = set()
    wanted = {*Gauge, *Latency, names.REQUESTS_TOTAL, names.TOKENS_TOTAL}
    try:
        for family in text_string_to_metric_families(text):
            if family.name in set(Latency):
                declared.add(Latency(family.name))
            for sample in family.samples:
                if _stem(sample.name) in wanted and "model" in sample.labels:
                    models[sample.labels["model"]].add(sample)
    except (ValueError, KeyError, IndexError) as problem:
        raise TransientError("MalformedMetrics", f"the gateway's metrics cannot be parsed: {problem}") from problem
    return Scrape({model: _sample(lines) for model, lines in models.items()}, frozenset(declared))


def _stem(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        if name.removesuffix(suffix) in set(Latency):
            return name.removesuffix(suffix)
    return name


def _sample(lines: _Lines) -> ModelSample:
    broken: set[Gauge | Counter | Latency] = set()
    gauges: dict[Gauge, float] = {}
    for gauge in Gauge:
        if gauge in lines.broken:
            broken.add(gauge)
        elif (gauge, ()) in lines.values:
            gauges[gauge] = lines.values[gauge, ()]
    counters: dict[Counter, float] = defaultdict(float)
    for (name, labels), value in lines.values.items():
        for counter in _counters(name, dict(labels)):
            if name in lines.broken:
                broken.add(counter)
            else:
                counters[counter] += value
    latencies: dict[Latency, Buckets] = {}
    for latency in Latency:
        present = [key for key in lines.values if _stem(key[0]) == latency]
        buckets = None if latency in lines.broken else _buckets(latency, lines.values.items())
        if buckets is not None:
            latencies[latency] = buckets
        elif present:
            broken.add(latency)
    return ModelSample(gauges, dict(counters), latencies, frozenset(broken))


def _counters(name: str, labels: Mapping[str, str]) -> Iterator[Counter]:
    if name == names.REQUESTS_TOTAL:
        yield Counter.ENDED
        if labels.get("code", "").startswith("2"):
            yield Counter.SUCCEEDED
    elif name == names.TOKENS_TOTAL and labels.get("kind") in _TOKEN_KINDS:
        yield _TOKEN_KINDS[labels["kind"]]


def _buckets(
    latency: Latency, values: Iterable[tuple[tuple[str, tuple[tuple[str, str], ...]], float]]
) -> Buckets | None:
    total = count = None
    edges: dict[float, float] = {}
    for (name, labels), value in values:
        if name == f"{latency}_sum":
            total = value
        elif name == f"{latency}_count":
            count = value
        elif name == f"{latency}_bucket":
            edges.update(_edge(dict(labels), value))
    bounds = tuple(sorted(edges))
    cumulative = tuple(edges[bound] for bound in bounds)
    whole = bounds[-1:] == (math.inf,) and cumulative[-1:] == (count,) and total is not None
    rising = all(low <= high for low, high in pairwise(cumulative))
    return Buckets(bounds, cumulative, total) if whole and rising and total is not None else None


def _edge(labels: Mapping[str, str], value: float) -> Iterator[tuple[float, float]]:
    try:
        bound = float(labels["le"])
    except (KeyError, ValueError):
        return
    if not math.isnan(bound):
        yield bound, value
