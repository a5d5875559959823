"""What the gateway reads from HTTP headers and gRPC metadata: key, namespace, patience, trace."""

from __future__ import annotations

from collections.abc import Mapping

from enginewright_api.recipe import Task

from .errors import NotNowError, RefusedError
from .exchange import Exchange
from .keys import Caller
from .routes import ServedModel, resolve
from .service import Gateway

NAMESPACE = "enginewright-namespace"
TIMEOUT = "enginewright-timeout-milliseconds"
TRACE = ("traceparent", "tracestate")

_MAX_TIMEOUT_MILLISECONDS = 24 * 3600 * 1000


def identify(gateway: Gateway, headers: Mapping[str, str], exchange: Exchange) -> Caller:
    """Who asks. Raises RefusedError 401."""
    caller = gateway.keys.caller(headers.get("authorization"))
    exchange.caller = caller.name
    return caller


def find_model(
    gateway: Gateway, headers: Mapping[str, str], caller: Caller, wanted: str, exchange: Exchange
) -> ServedModel:
    """The model meant, noted for log and metrics.

    Raises RefusedError 400, 404; NotNowError 503 where it is not known yet which models there are.
    """
    try:
        model = resolve(caller.visible(gateway.table.models()), wanted, headers.get(NAMESPACE) or None)
    except RefusedError as error:
        if error.status == 404 and not gateway.table.synced:
            message = "the gateway has just started and does not know the models yet; ask again"
            raise NotNowError(503, "Starting", message, retry_after_seconds=1) from error
        raise
    exchange.model = model.id
    return model


def check_answers_whole(model: ServedModel) -> None:
    """For calls that have one answer. Raises RefusedError 400 for a model whose answers come in parts."""
    if model.task is Task.TEXT_GENERATION:
        raise RefusedError(
            400, "WrongTask",
            f"model {model.id} generates text, its answers come in parts: ask it over /v1/chat/completions,"
            " /v1/completions or the gRPC call ModelStreamInfer",
        )  # fmt: skip


def deadline(gateway: Gateway, headers: Mapping[str, str]) -> float | None:
    """When the client stops waiting, on the gateway's clock. Raises RefusedError 400."""
    value = headers.get(TIMEOUT)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= _MAX_TIMEOUT_MILLISECONDS):
        raise RefusedError(400, "InvalidTimeout", f"{TIMEOUT}: must be a whole number of milliseconds, at most a day")
    return gateway.clock() + int(value) / 1000
