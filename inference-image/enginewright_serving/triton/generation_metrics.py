"""What a generating engine tells about itself, in the server's own Prometheus metrics.

tritonserver's figures are wrong for models that answer in several responses: nothing is ever pending, a request counts
as done when the model has taken it. So queue, cache and tokens are told here. The `vllm:` names are those that
inference pickers read (Gateway API Inference Extension, model server protocol).
"""

from __future__ import annotations

from typing import Any

from enginewright_serving.triton.generation_runner import RunnerLoad

RUNNING = "enginewright_engine_running"
WAITING = "enginewright_engine_waiting"
KV_CACHE_USAGE = "enginewright_engine_kv_cache_usage"
STEPS = "enginewright_engine_steps_total"
TOKENS = "enginewright_engine_tokens_total"
FIRST_TOKEN_SECONDS = "enginewright_engine_time_to_first_token_seconds"  # noqa: S105 - a metric name
DRAFTS = "enginewright_engine_draft_tokens_total"
INTER_TOKEN_SECONDS = "enginewright_engine_inter_token_seconds"  # noqa: S105 - a metric name


class GenerationMetrics:
    """Metrics of one model. `backend_utils` is triton_python_backend_utils; a metric is one message to the server."""

    def __init__(self, backend_utils: Any, model: str) -> None:
        self._utils = backend_utils
        self._families: list[Any] = []  # a family takes its metrics with it when it is collected
        self._load = RunnerLoad(0, 0, 0.0)
        self._due: dict[int, tuple[Any, float]] = {}
        labels = {"model": model}
        aliases = {"model_name": model}
        self._running = [
            self._metric("GAUGE", RUNNING, "Answers being generated", labels),
            self._metric("GAUGE", "vllm:num_requests_running", "As enginewright_engine_running", aliases),
        ]
        self._waiting = [
            self._metric("GAUGE", WAITING, "Answers waiting for room in the batch", labels),
            self._metric("GAUGE", "vllm:num_requests_waiting", "As enginewright_engine_waiting", aliases),
        ]
        self._kv_cache = [
            self._metric("GAUGE", KV_CACHE_USAGE, "Share of the key-value cache in use", labels),
            self._metric("GAUGE", "vllm:kv_cache_usage_perc", "As enginewright_engine_kv_cache_usage", aliases),
        ]
        self._steps = self._metric("COUNTER", STEPS, "Steps of the batch", labels)
        self._tokens = self._by_kind(TOKENS, "Tokens", labels, ("prompt", "completion"))
        self._drafts = self._by_kind(DRAFTS, "Tokens of speculative decoding", labels, ("drafted", "accepted"))
        self._first = self._sum_and_count(FIRST_TOKEN_SECONDS, "From the request to its first token", labels)
        self._inter = self._sum_and_count(INTER_TOKEN_SECONDS, "Between tokens of one answer", labels)

    def load(self, load: RunnerLoad) -> None:
        """Levels of now; only what changed is sent."""
        for value, before, metrics in (
            (load.running, self._load.running, self._running),
            (load.waiting, self._load.waiting, self._waiting),
            (load.kv_cache_usage, self._load.kv_cache_usage, self._kv_cache),
        ):
            if value != before:
                for metric in metrics:
                    metric.set(value)
        self._count(self._steps, load.steps - self._load.steps)
        for kind in ("drafted", "accepted"):
            self._count(self._drafts[kind], getattr(load, kind) - getattr(self._load, kind))
        self._load = load
        due, self._due = self._due, {}
        for metric, amount in due.values():
            metric.increment(amount)

    def generated(self, tokens: int) -> None:
        """Tokens came."""
        self._count(self._tokens["completion"], tokens)

    def began(self, prompt_tokens: int, seconds: float) -> None:
        """An answer's first token came."""
        self._count(self._tokens["prompt"], prompt_tokens)
        self._observe(self._first, seconds, 1)

    def ended(self, completion_tokens: int, seconds_after_first: float) -> None:
        """An answer ended with so many tokens."""
        if completion_tokens > 1:
            self._observe(self._inter, seconds_after_first, completion_tokens - 1)

    def _metric(self, kind: str, name: str, help_text: str, labels: dict[str, str]) -> Any:
        return self._family(kind, name, help_text).Metric(labels=labels)

    def _by_kind(self, name: str, help_text: str, labels: dict[str, str], kinds: tuple[str, ...]) -> dict[str, Any]:
        family = self._family("COUNTER", name, help_text)
        return {kind: family.Metric(labels={**labels, "kind": kind}) for kind in kinds}

    def _sum_and_count(self, name: str, help_text: str, labels: dict[str, str]) -> tuple[Any, Any]:
        return (
            self._metric("COUNTER", f"{name}_sum", f"{help_text}: seconds in all", labels),
            self._metric("COUNTER", f"{name}_count", f"{help_text}: how many", labels),
        )

    def _family(self, kind: str, name: str, help_text: str) -> Any:
        family = self._utils.MetricFamily(
            name=name, description=help_text, kind=getattr(self._utils.MetricFamily, kind)
        )
        self._families.append(family)
        return family

    def _observe(self, metrics: tuple[Any, Any], seconds: float, count: int) -> None:
        total, number = metrics
        self._count(total, seconds)
        self._count(number, count)

    def _count(self, metric: Any, amount: float) -> None:
        """Told to the server with the next levels: a message for each token would cost more than the token's."""
        if amount:
            self._due[id(metric)] = metric, self._due.get(id(metric), (metric, 0.0))[1] + amount
