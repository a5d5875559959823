"""Prometheus metric names and buckets that more than one program uses."""

from __future__ import annotations

REQUESTS_TOTAL = "enginewright_requests_total"  # {model, code}
REQUEST_SECONDS = "enginewright_request_seconds"  # {model}
TIME_TO_FIRST_TOKEN_SECONDS = "enginewright_time_to_first_token_seconds"  # noqa: S105 - a metric name
INTER_TOKEN_SECONDS = "enginewright_inter_token_seconds"  # noqa: S105 - a metric name
QUEUE_DEPTH = "enginewright_queue_depth"  # {model}: waiting in the gateway
INFLIGHT = "enginewright_inflight"  # {model}: sent to a replica, not answered
TOKENS_TOTAL = "enginewright_tokens_total"  # {model, kind=prompt|completion|cached}
HELD_REQUESTS = "enginewright_held_requests"  # {model}

# OpenTelemetry GenAI semantic conventions, gen_ai.server.request.duration: 0.01 · 2^0..13.
REQUEST_BUCKETS_SECONDS = tuple(0.001 * 2**n for n in range(4)) + tuple(0.01 * 2**n for n in range(14))

# gen_ai.server.time_to_first_token and .time_per_output_token of the same conventions.
FIRST_TOKEN_BUCKETS_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
INTER_TOKEN_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

# Requests while a canary stands beside the engine that serves: {model, version=stable|canary, window}. The window is
# `RolloutStatus.window`; counts begin at zero with it, so that both versions are compared over the same time.
CANARY_REQUESTS_TOTAL = "enginewright_canary_requests_total"
CANARY_FAILURES_TOTAL = "enginewright_canary_failures_total"
CANARY_REQUEST_SECONDS = "enginewright_canary_request_seconds"
# Eight buckets for each doubling (1 ms to 131 s): a ratio of 1.2 must be told from one of 1.
CANARY_BUCKETS_SECONDS = tuple(0.001 * 2 ** (n / 8) for n in range(137))
