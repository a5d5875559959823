"""What the gateway answers when it does not pass a request on, and its three shapes on the wire."""

from __future__ import annotations

import math
from typing import Any

import grpc
import orjson

from enginewright_api.errors import DeterministicError, TransientError


class RefusedError(DeterministicError):
    """The caller has to change the request: 4xx, or 501 for what does not exist here."""

    def __init__(self, status: int, reason: str, message: str, *, param: str | None = None) -> None:
        super().__init__(reason, message)
        self.status = status
        self.param = param
        self.retry_after_seconds: float | None = None


class NotNowError(TransientError):
    """The same request may succeed later: 429, 502, 503 or 504."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason, message)
        self.status = status
        self.param: str | None = None
        self.retry_after_seconds = retry_after_seconds


AnswerableError = RefusedError | NotNowError

_CODES = {
    "InvalidKey": "invalid_api_key",
    "ModelNotFound": "model_not_found",
    "QueueFull": "rate_limit_exceeded",
    "QueueTimeout": "rate_limit_exceeded",
}
_GRPC = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def _openai_type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _snake(reason: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in reason).lstrip("_")


def openai_body(status: int, reason: str, message: str, param: str | None = None) -> bytes:
    """`{"error": {message, type, param, code}}`, as OpenAI's clients read it."""
    error: dict[str, Any] = {
        "message": message,
        "type": _openai_type(status),
        "param": param,
        "code": _CODES.get(reason, _snake(reason)),
    }
    return orjson.dumps({"error": error})


def kserve_body(message: str) -> bytes:
    """`{"error": "..."}`, as the KServe v2 protocol wants."""
    return orjson.dumps({"error": message})


def is_kserve(path: str) -> bool:
    """Whether errors on this path take the KServe shape."""
    return path == "/v2" or path.startswith("/v2/")


def wire_headers(error: AnswerableError) -> dict[str, str]:
    """Content type, and Retry-After in whole seconds where the error knows it."""
    headers = {"content-type": "application/json"}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 501:
        # OpenAI's clients repeat every 5xx unless told not to.
        headers["x-should-retry"] = "false"
    return headers


def wire_body(path: str, error: AnswerableError) -> bytes:
    """Body in the shape of the path's protocol."""
    if is_kserve(path):
        return kserve_body(error.message)
    return openai_body(error.status, error.reason, error.message, error.param)


def grpc_status(error: AnswerableError) -> grpc.StatusCode:
    """Status code of a gRPC answer."""
    return _GRPC.get(error.status, grpc.StatusCode.INTERNAL)
