"""The request body as it comes in: bounded, replayable while it is small, and a way to notice that the client left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from .errors import RefusedError

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeftError(Exception):
    """The client closed the connection; nobody is left to answer."""


class Inbound:
    """Reads ASGI messages of one request. One reader at a time."""

    def __init__(self, receive: Receive, *, max_body_bytes: int, max_replay_bytes: int) -> None:
        self._receive = receive
        self._max_body_bytes = max_body_bytes
        self._max_replay_bytes = max_replay_bytes
        self._kept: list[bytes] = []
        self._received_bytes = 0
        self._complete = asyncio.Event()
        self.fault: RefusedError | ClientLeftError | None = None
        """Why reading ended early; an HTTP client that sends the body may have turned it into an error of its own."""

    @property
    def repeatable(self) -> bool:
        """Whether what was received so far can be sent once more."""
        return self._received_bytes <= self._max_replay_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body from its beginning. Raises RefusedError 413, ClientLeftError."""
        for chunk in list(self._kept):
            yield chunk
        while not self._complete.is_set():
            chunk = await self._next()
            if chunk:
                yield chunk

    async def read(self) -> bytes:
        """The whole body. Raises as `chunks`."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def left(self) -> None:
        """Returns when the client leaves, after the whole body came."""
        await self._complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.fault = ClientLeftError()
            raise self.fault
        chunk: bytes = message.get("body", b"")
        self._received_bytes += len(chunk)
        if self._received_bytes > self._max_body_bytes:
            self.fault = body_too_large(self._max_body_bytes)
            raise self.fault
        if self.repeatable:
            self._kept.append(chunk)
        else:
            self._kept.clear()
        if not message.get("more_body", False):
            self._complete.set()
        return chunk


def body_too_large(limit_bytes: int) -> RefusedError:
    """413 for a body above the limit."""
    return RefusedError(413, "BodyTooLarge", f"the request body is larger than {limit_bytes} bytes, the limit here")


async def unless_left(inbound: Inbound, work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`, which is cancelled when the client leaves. Raises ClientLeftError then."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(inbound.left())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
