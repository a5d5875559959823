"""The outermost layer: strict request heads, one log line and one count a request, no exception beyond it.

What the ASGI server lets through although RFC 9112 or our limits forbid it is refused here, and the connection closed
(docs/decisions/0003-gateway-asgi-server.md has the measured table).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any

from .errors import RefusedError, wire_body, wire_headers
from .exchange import Exchange, finish
from .inbound import Receive, body_too_large
from .service import Gateway

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MAX_HEADERS = 128
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_LEFT = "499"
"""The code that proxies log for a client that left before its answer."""

logger = logging.getLogger("enginewright.gateway")


def check_head(version: str, headers: Sequence[tuple[bytes, bytes]], max_body_bytes: int) -> RefusedError | None:
    """What is wrong with a request's head, if anything. Header names come in lower case."""
    return next(_faults(version, headers, max_body_bytes), None)


def _faults(version: str, headers: Sequence[tuple[bytes, bytes]], max_body_bytes: int) -> Iterator[RefusedError]:
    hosts = [value for name, value in headers if name == b"host"]
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    encodings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    lengths = [value.strip() for name, value in headers if name == b"content-length"]
    if version not in {"1.0", "1.1"}:
        yield RefusedError(505, "HttpVersion", "this port speaks HTTP/1.1")
    if len(headers) > _MAX_HEADERS:
        yield RefusedError(431, "TooManyHeaders", f"more than {_MAX_HEADERS} header lines")
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        yield RefusedError(400, "InvalidHost", f"a request needs exactly one Host header, this one has {len(hosts)}")
    if hosts and not _HOST.fullmatch(hosts[0]):
        yield RefusedError(400, "InvalidHost", "the Host header is not a host name")
    if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
        yield RefusedError(400, "InvalidLength", "Content-Length must come once and be a number")
    if codings and (codings != [b"chunked"] or lengths or version == "1.0"):
        yield RefusedError(
            400, "InvalidFraming", "Transfer-Encoding may only be `chunked`, in HTTP/1.1 and without Content-Length"
        )
    if lengths and int(lengths[0]) > max_body_bytes:
        yield body_too_large(max_body_bytes)
    if any(encoding not in {b"", b"identity"} for encoding in encodings):
        yield RefusedError(415, "ContentEncoding", "compressed request bodies are not accepted; send it uncompressed")


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gateway = self._gateway
        began = gateway.clock()
        exchange = Exchange(protocol="http", method=scope["method"], path=scope["path"][:256])
        scope["enginewright.exchange"] = exchange
        answer = _Answer(send)
        try:
            fault = check_head(scope["http_version"], scope["headers"], gateway.settings.max_body_bytes)
            if fault is not None:
                await answer.refuse(scope["path"], fault)
            else:
                await self._app(scope, receive, answer.send)
        except Exception:
            # The application has answered 500 already, or the answer had begun and the connection is closed.
            logger.exception("%s %s failed", exchange.method, exchange.path, extra={"model": exchange.model})
        finally:
            finish(exchange, gateway.metrics, answer.code, gateway.clock() - began)


class _Answer:
    """Passes the answer on and notes its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.code = _LEFT

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.code = str(message["status"])
        await self._send(message)

    async def refuse(self, path: str, fault: RefusedError) -> None:
        """Answer and close: after a head like this nobody knows where the next request begins."""
        headers = wire_headers(fault) | {"connection": "close"}
        await self._respond(fault.status, headers, wire_body(path, fault))

    async def _respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        raw.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})
