"""uvicorn's httptools protocol with what it lacks: a bound on the size of a request's head and on its time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .errors import openai_body


class _HeadTooLargeError(Exception):
    """Stops the parser."""


def bounded_protocol(max_header_bytes: int, header_seconds: float) -> type[HttpToolsProtocol]:
    """The protocol class with these bounds, for `uvicorn.Config(http=...)`."""

    class BoundedProtocol(HttpToolsProtocol):
        """One connection."""

        _head_bytes = 0
        _in_head = True
        _refusal: tuple[int, str, str] = (400, "MalformedRequest", "this is not a valid HTTP/1.1 request")
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_timer = self.loop.call_later(header_seconds, self._head_too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_head_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._refused or self.parser is None:
                return
            if self._in_head and self._head_timer is None:
                self._head_timer = self.loop.call_later(header_seconds, self._head_too_slow)
            super().data_received(data)
            if self._in_head and not self._refused and self.parser is not None:
                # The parser keeps an unfinished header line to itself: count what it has swallowed.
                self._head_bytes += len(data)
                if self._head_bytes > max_header_bytes + len(data):
                    self._refuse_size()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self._head_bytes = True, 0
            self._line_bytes = 0

        def on_header(self, name: bytes, value: bytes) -> None:
            self._line_bytes += len(name) + len(value) + 4
            if self._line_bytes + len(self.url) > max_header_bytes:
                self._set_size_refusal()
                raise _HeadTooLargeError
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._stop_head_timer()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._in_head, self._head_bytes = True, 0

        def send_400_response(self, msg: str) -> None:
            """Called by uvicorn for whatever the parser refuses."""
            self._refused = True
            self._stop_head_timer()
            status, reason, message = self._refusal
            body = openai_body(status, reason, message)
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\nconnection: close\r\n"
                + b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            self.transport.close()

        _refused = False
        _line_bytes = 0

        def _set_size_refusal(self) -> None:
            self._refusal = (431, "HeadTooLarge", f"the request's head is larger than {max_header_bytes} bytes")

        def _refuse_size(self) -> None:
            self._set_size_refusal()
            self.send_400_response("")

        def _head_too_slow(self) -> None:
            if self._in_head and not self._refused:
                self._refusal = (408, "HeadTimeout", f"the request's head took longer than {header_seconds:g} s")
                self.send_400_response("")

        def _stop_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedProtocol
