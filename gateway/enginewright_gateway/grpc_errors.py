"""gRPC status codes and HTTP status codes, both ways."""

from __future__ import annotations

import grpc
import grpc.aio

from .errors import AnswerableError, NotNowError, RefusedError
from .routes import ServedModel
from .triton_errors import is_caller_fault

HTTP_OF = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


def http_code(status: grpc.StatusCode) -> str:
    """Label of a gRPC answer in metrics and log."""
    return str(HTTP_OF.get(status, 500))


def server_code(error: grpc.aio.AioRpcError) -> grpc.StatusCode:
    """Status of a server's refusal, mended where the server blames itself for the caller's fault."""
    code: grpc.StatusCode = error.code()
    return grpc.StatusCode.INVALID_ARGUMENT if is_caller_fault(error.details() or "") else code


def refused_by(model: ServedModel, details: str) -> RefusedError:
    """What any client is told when the model's server finds the request at fault."""
    return RefusedError(400, "RefusedByModel", f"model {model.id} refused the request: {details}")


def too_late(model: ServedModel) -> NotNowError:
    """What an OpenAI client is told when its own deadline has passed."""
    return NotNowError(504, "DeadlineExceeded", f"model {model.id} did not answer within the request's own time")


def from_server(model: ServedModel, error: grpc.aio.AioRpcError) -> AnswerableError:
    """What an OpenAI client is told about a server's refusal."""
    details = error.details() or "no details"
    code = server_code(error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return too_late(model)
    status = HTTP_OF.get(code, 500)
    if status in {400, 404}:
        return refused_by(model, details)
    return NotNowError(500 if status < 500 else status, "ModelFailed", f"model {model.id} failed: {details}")
