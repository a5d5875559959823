"""A TCP connection between two programs that goes wrong as told: silent, slow, or cut in the middle of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from enum import StrEnum
from typing import Self

_CHUNK_BYTES = 16 * 1024
_LOOK_SECONDS = 0.02


class Way(StrEnum):
    """How the link behaves, for connections that stand and for new ones."""

    WELL = "well"
    SILENT = "silent"
    """Bytes are taken and not passed on, in either direction; nobody is told."""
    REFUSED = "refused"
    """Every connection ends at once."""
    SLOW = "slow"
    """Answers trickle: `bytes_per_second`."""
    CUT = "cut"
    """A connection ends after `answer_bytes` more of its answers."""


class Link:
    """Passes connections to 127.0.0.1:`port` on to `upstream`. Runs in a thread of its own; attributes may be set."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.way = Way.WELL
        self.answer_bytes = 0
        self._changes = 0
        self.bytes_per_second = 0
        self.connections = 0
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @contextlib.contextmanager
    def going(self, way: Way, *, answer_bytes: int = 0, bytes_per_second: int = 0) -> Iterator[None]:
        """Behave so for a while."""
        self.answer_bytes, self.bytes_per_second, self.way = answer_bytes, bytes_per_second, way
        self._changes += 1
        try:
            yield
        finally:
            self.way = Way.WELL

    def _run(self) -> None:
        async def begin() -> None:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()

        self._loop.run_until_complete(begin())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = [writer]
        try:
            if self.way is Way.REFUSED:
                return
            there_reader, there_writer = await asyncio.open_connection(*self.upstream)
            ends.append(there_writer)
            passing = [
                asyncio.ensure_future(self._pass(reader, there_writer, answer=False)),
                asyncio.ensure_future(self._pass(there_reader, writer, answer=True)),
            ]
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            for task in passing:
                task.cancel()
        finally:
            for end in ends:
                with contextlib.suppress(OSError):
                    end.close()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answer: bool) -> None:
        passed, changes = 0, self._changes
        with contextlib.suppress(OSError):
            while True:
                data = await self._read(source)
                if not data:
                    return
                if changes != self._changes:
                    passed, changes = 0, self._changes
                if answer and self.way is Way.CUT:
                    data = data[: max(0, self.answer_bytes - passed)]
                    if not data:
                        return
                if answer and self.way is Way.SLOW:
                    await asyncio.sleep(len(data) / self.bytes_per_second)
                target.write(data)
                await target.drain()
                passed += len(data)

    async def _read(self, source: asyncio.StreamReader) -> bytes:
        """What comes next, held back while the link is silent; nothing once it refuses."""
        reading = asyncio.ensure_future(source.read(_CHUNK_BYTES))
        try:
            while True:
                await asyncio.wait([reading], timeout=_LOOK_SECONDS)
                if self.way is Way.REFUSED:
                    return b""
                if reading.done():
                    if self.way is not Way.SILENT:
                        return reading.result()
                    await asyncio.sleep(_LOOK_SECONDS)  # there is nothing to wait for but the way
        finally:
            reading.cancel()
