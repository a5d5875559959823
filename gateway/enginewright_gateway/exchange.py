"""What one request turned out to be: filled in on the way, read once at its end for the log line and the metrics."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field

from enginewright_api.logs import JsonFormatter, log_as_json

from .comparison import Attempt, count
from .metrics import Metrics

logger = logging.getLogger("enginewright.gateway.access")

_OPERATIONS = {"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}


@dataclass(slots=True)
class Exchange:
    """Facts of one request. Never its content."""

    protocol: str
    method: str
    path: str
    caller: str = ""
    model: str = ""
    """`namespace/name`; empty until a model was found, so that invented names make no metrics."""
    inference: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    code: str = ""
    """What an answer came to after its head had said 200: the status it would have had, 499 when the client left."""
    endpoint: str = ""
    """Server that was asked last; empty when none was."""
    retries: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    """Answers of servers, where there is a canary beside the stable engine."""


def finish(exchange: Exchange, metrics: Metrics, code: str, seconds: float) -> None:
    """Count it and write its log line."""
    code = exchange.code or code
    if exchange.inference:
        count(exchange.attempts, code)
        metrics.answered(exchange.model, code, seconds)
        if exchange.prompt_tokens:
            metrics.prompt_tokens(exchange.model, exchange.prompt_tokens)
        if exchange.completion_tokens:
            metrics.completion_tokens(exchange.model, exchange.completion_tokens)
    # Probes and scrapes come every few seconds and say nothing.
    level = logging.DEBUG if exchange.path in _OPERATIONS and code == "200" else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(
            level,
            "request",
            extra={
                "protocol": exchange.protocol, "method": exchange.method, "path": exchange.path,
                "model": exchange.model, "caller": exchange.caller, "code": code,
                "ms": round(seconds * 1000, 2), "tokens": exchange.prompt_tokens,
                "completion_tokens": exchange.completion_tokens, "endpoint": exchange.endpoint,
                "retries": exchange.retries,
            },
        )  # fmt: skip


def log_to_stdout(level: int = logging.INFO) -> None:
    """One JSON object a line: requests on stdout, everything else on stderr.

    Requests are told at INFO. What else is said at INFO is left out: it comes with DEBUG.
    """
    log_as_json(level if level < logging.INFO else max(level, logging.WARNING))
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)
