"""What the operator tells about itself over HTTP: metrics and health."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import generate_latest

from .metrics import Metrics

_REQUEST_SECONDS = 5.0
_REQUEST_BYTES = 8192


class Observability:
    """One operator's metrics, and the port that tells them."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    async def serve(self, address: str, port: int) -> None:
        """Answer /metrics and /healthz until cancelled. Health is that the event loop answers at all."""
        server = await asyncio.start_server(self._answer, address, port)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response(request[:_REQUEST_BYTES]))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            logging.getLogger(__name__).debug("a client broke off")
        finally:
            writer.close()

    def _response(self, request: bytes) -> bytes:
        path = request.split(b" ", 2)[1].split(b"?")[0] if request.count(b" ") > 1 else b""
        if path == b"/metrics":
            return _http(200, generate_latest(self.metrics.registry), "text/plain; version=0.0.4; charset=utf-8")
        if path in (b"/healthz", b"/readyz"):
            return _http(200, b"ok\n", "text/plain")
        return _http(404, b"there is /metrics, /healthz and /readyz\n", "text/plain")


def _http(code: int, body: bytes, content_type: str) -> bytes:
    reason = {200: "OK", 404: "Not Found"}[code]
    head = f"HTTP/1.1 {code} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
