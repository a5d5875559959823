"""Figures from expositions: real registries, restarts, gaps, nonsense."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from enginewright_api import metrics as names
from enginewright_api.errors import TransientError
from enginewright_autoscaler.exposition import Latency, parse
from enginewright_autoscaler.signals import Signals

MODEL = "default/minilm"


class GatewayMetrics:
    """The metrics of one gateway process, as prometheus_client writes them."""

    def __init__(self, *, buckets: tuple[float, ...] = names.REQUEST_BUCKETS_SECONDS, tokens: bool = False) -> None:
        self.registry = CollectorRegistry()
        self.waiting = Gauge(names.QUEUE_DEPTH, "w", ["model"], registry=self.registry)
        self.running = Gauge(names.INFLIGHT, "r", ["model"], registry=self.registry)
        self.requests = Counter(names.REQUESTS_TOTAL, "n", ["model", "code"], registry=self.registry)
        self.tokens = Counter(names.TOKENS_TOTAL, "t", ["model", "kind"], registry=self.registry)
        self.seconds = Histogram(names.REQUEST_SECONDS, "s", ["model"], buckets=buckets, registry=self.registry)
        if tokens:
            self.first = Histogram(names.TIME_TO_FIRST_TOKEN_SECONDS, "f", ["model"], registry=self.registry)
        self.levels(0, 0)

    def levels(self, waiting: float, running: float, model: str = MODEL) -> None:
        self.waiting.labels(model).set(waiting)
        self.running.labels(model).set(running)

    def answer(self, count: int = 1, *, seconds: float = 0.05, code: str = "200", model: str = MODEL) -> None:
        for _ in range(count):
            self.requests.labels(model, code).inc()
            self.tokens.labels(model, "prompt").inc(10)
            if code == "200":
                self.seconds.labels(model).observe(seconds)

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()


def feed(signals: Signals, gateway: GatewayMetrics | str, at: float, url: str = "http://a") -> None:
    signals.expect([url], at)
    signals.add(url, parse(gateway if isinstance(gateway, str) else gateway.text), at)


def test_a_gateway_tells_levels_rates_and_latencies() -> None:
    gateway, signals = GatewayMetrics(), Signals()
    gateway.answer(500)  # long ago
    for second in range(11):
        gateway.levels(4 if second % 2 else 2, 3)
        feed(signals, gateway, 100 + second)
        gateway.answer(9, seconds=0.03)
        gateway.answer(1, seconds=0.9)
        gateway.answer(5, code="429")
    traffic = signals.traffic(MODEL)
    assert traffic.waiting is not None and traffic.running is not None
    assert traffic.waiting.value == pytest.approx(2.8)  # 2, 4, 2, 4, 2 of the last five seconds
    assert traffic.running.value == 3
    assert traffic.waiting.at_seconds == 110
    assert traffic.completions_per_second is not None and traffic.completions_per_second.value == pytest.approx(10)
    assert traffic.arrivals_per_second is not None and traffic.arrivals_per_second.value == pytest.approx(15)
    assert traffic.prompt_tokens_per_second is not None
    assert traffic.prompt_tokens_per_second.value == pytest.approx(150)
    latency = traffic.request_latency
    assert latency is not None and latency.usable
    assert (latency.count, latency.window_seconds) == (100, 10)
    assert latency.share_within(0.16) == pytest.approx(0.9)
    assert latency.sum_seconds == pytest.approx(90 * 0.03 + 10 * 0.9)


def test_arrivals_are_what_ended_and_what_piled_up() -> None:
    gateway, signals = GatewayMetrics(), Signals()
    for second in range(11):
        gateway.levels(second * 3, 0)
        feed(signals, gateway, second)
        gateway.answer(2)
    arrivals = signals.traffic(MODEL).arrivals_per_second
    assert arrivals is not None and arrivals.value == pytest.approx(5)


def test_a_restarted_gateway_loses_nothing_it_counted_since() -> None:
    signals = Signals()
    before, after = GatewayMetrics(), GatewayMetrics()
    before.answer(1000)
    feed(signals, before, 0)
    before.answer(20)
    feed(signals, before, 5)
    after.answer(30)
    feed(signals, after, 10)
    traffic = signals.traffic(MODEL)
    assert traffic.completions_per_second is not None and traffic.completions_per_second.value == pytest.approx(5)
    assert traffic.request_latency is not None and traffic.request_latency.count == 50


def test_the_first_requests_of_a_model_count() -> None:
    """prometheus_client writes no histogram for a model before its first observation."""
    gateway, signals = GatewayMetrics(), Signals()
    feed(signals, gateway, 0)
    assert signals.traffic(MODEL).request_latency is not None
    gateway.answer(7)
    feed(signals, gateway, 10)
    traffic = signals.traffic(MODEL)
    assert traffic.request_latency is not None and traffic.request_latency.count == 7
    assert traffic.completions_per_second is not None and traffic.completions_per_second.value == pytest.approx(0.7)


def test_the_window_slides() -> None:
    gateway, signals = GatewayMetrics(), Signals()
    gateway.answer(1)
    for second in range(100):
        feed(signals, gateway, second)
        if second < 20:
            gateway.answer(50)
    traffic = signals.traffic(MODEL)
    assert traffic.completions_per_second is not None and traffic.completions_per_second.value == 0
    assert traffic.request_latency is not None and traffic.request_latency.count == 0


def test_gateways_are_summed() -> None:
    one, two = GatewayMetrics(), GatewayMetrics(buckets=(0.01, 0.02, 0.16, 1.0, 99.0))
    signals = Signals()
    for at in (0.0, 10.0):
        signals.expect(["http://a", "http://b"], at)
        signals.add("http://a", parse(one.text), at)
        signals.add("http://b", parse(two.text), at)
        one.levels(4, 1)
        two.levels(6, 2)
        one.answer(30, seconds=0.1)
        two.answer(10, seconds=0.5)
    traffic = signals.traffic(MODEL)
    assert traffic.waiting is not None and traffic.waiting.value == 10
    assert traffic.running is not None and traffic.running.value == 3
    assert traffic.completions_per_second is not None and traffic.completions_per_second.value == pytest.approx(4)
    latency = traffic.request_latency
    assert latency is not None and latency.usable
    assert latency.upper_bounds_seconds == (0.01, 0.02, 0.16, math.inf)
    assert latency.cumulative == (0, 0, 30, 40)


def test_a_silent_gateway_makes_the_sum_old_until_it_is_gone() -> None:
    one, two, signals = GatewayMetrics(), GatewayMetrics(), Signals()
    signals.expect(["http://a", "http://b"], 0)
    signals.add("http://a", parse(one.text), 0)
    signals.add("http://b", parse(two.text), 0)
    signals.add("http://a", parse(one.text), 40)
    assert signals.traffic(MODEL).waiting.at_seconds == 0  # type: ignore[union-attr]
    signals.expect(["http://a"], 41)
    assert signals.traffic(MODEL).waiting.at_seconds == 40  # type: ignore[union-attr]


def test_a_gateway_that_never_spoke_is_missing_since_it_was_listed() -> None:
    one, signals = GatewayMetrics(), Signals()
    signals.expect(["http://a", "http://b"], 5)
    assert signals.traffic(MODEL).waiting is None
    signals.add("http://a", parse(one.text), 30)
    assert signals.traffic(MODEL).waiting.at_seconds == 5  # type: ignore[union-attr]


def test_a_model_that_no_gateway_knows_is_missing_not_idle() -> None:
    signals = Signals()
    feed(signals, GatewayMetrics(), 0)
    traffic = signals.traffic("default/other")
    assert traffic.waiting is None and traffic.running is None and traffic.request_latency is None


def test_an_absent_histogram_is_missing_a_declared_one_is_empty() -> None:
    signals = Signals()
    feed(signals, GatewayMetrics(), 0)
    assert signals.traffic(MODEL).time_to_first_token is None
    feed(signals, GatewayMetrics(tokens=True), 1)
    assert signals.traffic(MODEL).time_to_first_token is not None
    assert Latency.FIRST_TOKEN in parse(GatewayMetrics(tokens=True).text).declared


W, R = f'{names.QUEUE_DEPTH}{{model="{MODEL}"}}', f'{names.INFLIGHT}{{model="{MODEL}"}}'
S = names.REQUEST_SECONDS


@pytest.mark.parametrize(
    "lines",
    [f"{W} NaN", f"{W} +Inf", f"{W} -1", f"{W} 3\n{W} 4", ""],
    ids=["nan", "infinite", "negative", "contradiction", "absent"],
)
def test_an_unusable_level_ages_instead_of_becoming_zero(lines: str) -> None:
    signals = Signals()
    feed(signals, f"{W} 7\n{R} 1\n", 0)
    feed(signals, f"{lines}\n{R} 2\n", 10)
    traffic = signals.traffic(MODEL)
    assert traffic.waiting is not None and traffic.running is not None
    assert (traffic.waiting.value, traffic.waiting.at_seconds) == (7, 0)
    assert traffic.running.at_seconds == 10


def test_a_repeated_line_is_no_contradiction() -> None:
    signals = Signals()
    feed(signals, f"{W} 7\n{W} 7\n{R} 1\n", 0)
    assert signals.traffic(MODEL).waiting.value == 7  # type: ignore[union-attr]


def histogram(*buckets: tuple[str, float], count: float | None = None, total: float | None = 1.0) -> str:
    """Lines of a histogram, whole or not."""
    lines = [f"# TYPE {S} histogram"]
    lines += [f'{S}_bucket{{model="{MODEL}",le="{bound}"}} {value}' for bound, value in buckets]
    lines += [] if count is None else [f'{S}_count{{model="{MODEL}"}} {count}']
    lines += [] if total is None else [f'{S}_sum{{model="{MODEL}"}} {total}']
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        histogram(("0.1", 5), count=5),
        histogram(("0.1", 5), ("+Inf", 9), count=10),
        histogram(("0.1", 9), ("+Inf", 5), count=5),
        histogram(("0.1", 5), ("+Inf", 9)),
        histogram(("0.1", 5), ("+Inf", 9), count=9, total=None),
        histogram(("0.1", float("nan")), ("+Inf", 9), count=9),
        histogram(("fast", 5), ("+Inf", 9), count=8),
    ],
    ids=["no +Inf", "count differs", "falling", "no count", "no sum", "nan", "bound"],
)
def test_half_a_histogram_is_none(text: str) -> None:
    signals = Signals()
    feed(signals, f"{W} 1\n{R} 1\n{histogram(('0.1', 0), ('+Inf', 0), count=0, total=0)}", 0)
    feed(signals, f"{W} 1\n{R} 1\n{text}", 10)
    latency = signals.traffic(MODEL).request_latency
    assert latency is not None
    assert (latency.count, latency.at_seconds) == (0, 0)


@pytest.mark.parametrize("text", [f"{W} 1\n{R} one\n", '{model="x" 1', f"{names.QUEUE_DEPTH}{{model="])
def test_malformed_text_is_no_scrape(text: str) -> None:
    with pytest.raises(TransientError, match="MalformedMetrics"):
        parse(text)


def test_other_models_and_metrics_do_not_matter() -> None:
    gateway, signals = GatewayMetrics(), Signals()
    gateway.levels(9, 9, model="other/minilm")
    text = gateway.text + "process_cpu_seconds_total NaN\nenginewright_queue_depth 5\n"
    feed(signals, text, 0)
    assert signals.traffic(MODEL).waiting.value == 0  # type: ignore[union-attr]
    signals.forget([MODEL])
    assert signals.traffic("other/minilm").waiting is None
