"""KServe v2 over HTTP: heads are read, bodies pass through, the binary tensor extension included."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import aiohttp
import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .errors import NotNowError, RefusedError, kserve_body
from .exchange import Exchange
from .headers import TRACE, check_answers_whole, deadline, find_model, identify
from .inbound import ClientLeftError, Inbound, unless_left
from .routes import Endpoint, ServedModel
from .service import EndpointFailedError, Fault, Gateway, connection_failure
from .triton_errors import is_caller_fault, is_engine_gone

HEADER_LENGTH = "inference-header-content-length"
_REQUEST_HEADERS = ("content-type", "content-length", HEADER_LENGTH, "accept", "accept-encoding", *TRACE)
_ANSWER_HEADERS = ("content-type", "content-encoding", HEADER_LENGTH)
_BUFFERED_BYTES = 2**20
"""Answers up to this size are read whole before a byte goes out: until then another server can be asked."""

_ACTIONS = {
    "infer": "POST",
    "generate": "POST",
    "generate_stream": "POST",
    "ready": "GET",
    "config": "GET",
    "stats": "GET",
}
_INFERENCE = {"infer", "generate", "generate_stream"}

logger = logging.getLogger("enginewright.gateway")


def kserve_router(gateway: Gateway) -> APIRouter:
    """Routes below /v2."""
    router = APIRouter(prefix="/v2")

    @router.get("")
    async def server_metadata(request: Request) -> dict[str, object]:
        """Name and extensions."""
        identify(gateway, request.headers, request.scope["enginewright.exchange"])
        return {"name": "enginewright", "version": "2", "extensions": ["binary_tensor_data", "model_configuration"]}

    @router.get("/health/live")
    async def live() -> Response:
        """The process answers."""
        return Response()

    @router.get("/health/ready")
    async def ready() -> Response:
        """The routes are known and the process is not about to stop."""
        return Response(status_code=200 if gateway.table.synced and not gateway.draining else 503)

    async def model_call(request: Request) -> Response:
        exchange: Exchange = request.scope["enginewright.exchange"]
        path = request.path_params
        action: str = path.get("action", "")
        if action and action not in _ACTIONS:
            raise RefusedError(
                404, "NotAvailable", f"{request.url.path[:200]} does not exist here; a model has: {', '.join(_ACTIONS)}"
            )
        if request.method != _ACTIONS.get(action, "GET"):
            raise RefusedError(
                405, "WrongMethod", f"{action or 'metadata'} is asked for with {_ACTIONS.get(action, 'GET')}"
            )
        exchange.inference = action in _INFERENCE
        caller = identify(gateway, request.headers, exchange)
        model = find_model(gateway, request.headers, caller, path["name"], exchange)
        if action == "ready" and not model.all_endpoints:
            return JSONResponse({"error": f"model {model.id} is not ready: {model.condition}"}, status_code=400)
        if action == "infer":
            check_answers_whole(model)
        if exchange.inference:
            _check_lengths(request.headers)
        version: str = path.get("version", "")
        if version and not (version.isascii() and version.isdigit()):
            raise RefusedError(404, "NotFound", f"model {model.id} has no version {version[:50]!r}")
        upstream_path = f"/v2/models/{model.name}" + (f"/versions/{version}" if version else "")
        return _Relay(gateway, model, exchange, request, upstream_path + (f"/{action}" if action else ""))

    for prefix in ("/models/{name}", "/models/{name}/versions/{version}"):
        for path in (prefix, prefix + "/{action}"):
            router.add_api_route(path, model_call, methods=["GET", "POST"], include_in_schema=False)
    return router


def _check_lengths(headers: Mapping[str, str]) -> None:
    """tritonserver takes an empty body, or a length that is no number, as raw bytes of a tensor, and answers 200."""
    if headers.get("content-length") == "0":
        raise RefusedError(400, "EmptyBody", "the request has no body; it needs at least `inputs`")
    length = headers.get(HEADER_LENGTH)
    if length is None:
        return
    if not (length.isascii() and length.isdigit()) or int(length) == 0:
        raise RefusedError(400, "InvalidHeaderLength", f"{HEADER_LENGTH}: must be the size of the JSON part in bytes")
    if int(length) > int(headers.get("content-length", length)):
        raise RefusedError(400, "InvalidHeaderLength", f"{HEADER_LENGTH}: {length} is more than the whole body")


class _Relay(Response):
    """Sends the request to a server and its answer to the client, chunk by chunk."""

    def __init__(self, gateway: Gateway, model: ServedModel, exchange: Exchange, request: Request, path: str) -> None:
        super().__init__()
        self._gateway = gateway
        self._model = model
        self._exchange = exchange
        self._method = request.method
        self._path = path
        self._deadline = deadline(gateway, request.headers)
        self._request_headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request. Raises the gateway's errors as long as nothing was sent."""
        settings = self._gateway.settings
        inbound = Inbound(receive, max_body_bytes=settings.max_body_bytes, max_replay_bytes=settings.max_replay_bytes)

        async def attempt(endpoint: Endpoint) -> None:
            await self._send_to(endpoint, inbound, send)

        work = self._gateway.with_endpoint(
            self._model, self._exchange, attempt, deadline=self._deadline,
            repeatable=lambda: inbound.repeatable and not self._started,
        )  # fmt: skip
        try:
            await unless_left(inbound, work)
        except ClientLeftError:
            if not self._started:
                raise
        except _AnswerBrokeOffError as error:
            # Returning with the answer unfinished makes the ASGI server close the connection: the client notices.
            logger.warning("the answer broke off: %s", error, extra={"model": self._model.id})

    async def _send_to(self, endpoint: Endpoint, inbound: Inbound, send: Send) -> None:
        body = inbound.chunks() if self._method == "POST" else None
        left = None if self._deadline is None else max(0.0, self._deadline - self._gateway.clock())
        try:
            async with asyncio.timeout(left):
                answer = await self._gateway.upstream.request(
                    endpoint, self._method, self._path, self._request_headers, body
                )
                async with answer:
                    if (answer.content_length or 2**62) <= _BUFFERED_BYTES:
                        await self._send_whole(answer, await answer.read(), send)
                    elif answer.status in {500, 501, 503}:
                        await self._send_whole(answer, await answer.content.read(_BUFFERED_BYTES), send)
                    else:
                        await self._send_parts(answer, send)
        except TimeoutError as error:
            if self._started:
                raise _AnswerBrokeOffError("the request's own time was up") from error
            raise NotNowError(
                504, "DeadlineExceeded", f"model {self._model.id} did not answer within the request's own time"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            if inbound.fault is not None:
                raise inbound.fault from error
            if self._started:
                raise _AnswerBrokeOffError(type(error).__name__) from error
            raise connection_failure(error) from error

    async def _send_whole(self, answer: aiohttp.ClientResponse, body: bytes, send: Send) -> None:
        status = answer.status
        if status in {500, 501, 503} and "content-encoding" not in answer.headers:
            message = _message(body)
            if is_engine_gone(message):
                raise EndpointFailedError(message, Fault.ENGINE_GONE)
            if status == 503:
                raise EndpointFailedError(message, Fault.BUSY)
            status = 400 if is_caller_fault(message) else status
            body = kserve_body(message)
        await self._start(answer, status, send, len(body))
        await send({"type": "http.response.body", "body": body})

    async def _send_parts(self, answer: aiohttp.ClientResponse, send: Send) -> None:
        await self._start(answer, answer.status, send, answer.content_length)
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _start(self, answer: aiohttp.ClientResponse, status: int, send: Send, length: int | None) -> None:
        headers = [(name.encode(), answer.headers[name].encode()) for name in _ANSWER_HEADERS if name in answer.headers]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        if status >= 400 and "content-encoding" not in answer.headers:
            # The server's error answers to binary requests carry JSON under another content type, or none.
            headers = [(name, value) for name, value in headers if name != b"content-type"]
            headers.append((b"content-type", b"application/json"))
        self._started = True
        await send({"type": "http.response.start", "status": status, "headers": headers})


class _AnswerBrokeOffError(Exception):
    """The server or the time ended after the answer had begun: it cannot be repeated."""


def _message(body: bytes) -> str:
    """Text of a server's error answer."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:500].decode(errors="replace")
    return str(parsed.get("error", "")) if isinstance(parsed, dict) else ""
