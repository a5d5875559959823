"""Answers a generation request: every prompt at work at once, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import Response

from .errors import NotNowError, RefusedError, openai_body
from .exchange import Exchange
from .generating import Chunk, Generation
from .headers import TRACE
from .inbound import ClientLeftError, Inbound, unless_left
from .openai_answers import ChatShape, CompletionShape, Writer
from .openai_generation import ChatRequest, CompletionRequest
from .routes import ServedModel
from .service import Gateway


class TextRequest:
    """One request on its way through the gateway."""

    def __init__(
        self,
        gateway: Gateway,
        model: ServedModel,
        wanted: ChatRequest | CompletionRequest,
        exchange: Exchange,
        headers: Mapping[str, str],
        *,
        deadline: float | None,
    ) -> None:
        shape = ChatShape() if isinstance(wanted, ChatRequest) else CompletionShape()
        self._writer = Writer(
            shape, wanted.model, with_logprobs=wanted.with_logprobs, include_usage=wanted.include_usage
        )
        self._answers = wanted.answers
        self._exchange = exchange
        metadata = [(name, headers[name]) for name in TRACE if name in headers]
        self._generations = [
            Generation(
                gateway, model, [*inputs, *wanted.sampling_inputs()], wanted.answers, exchange,
                deadline=deadline, metadata=metadata,
            )
            for inputs in wanted.prompts()
        ]  # fmt: skip

    async def whole(self) -> bytes:
        """Body of the answer. Raises RefusedError, NotNowError."""
        answers: list[list[Chunk]] = [[] for _ in range(self._answers * len(self._generations))]
        async with self.begun():
            async for index, chunk in self._merged():
                answers[index].append(chunk)
        return self._writer.whole(answers)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events, inside `begun`. What goes wrong on the way is the last of them."""
        try:
            async with contextlib.aclosing(self._merged()) as merged:
                async for index, chunk in merged:
                    yield self._writer.events(index, chunk)
            yield self._writer.last()
        except (RefusedError, NotNowError) as error:
            self._exchange.code = str(error.status)
            yield b"data: " + openai_body(error.status, error.reason, error.message, error.param) + b"\n\n"

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """Every prompt has brought its first token. Raises RefusedError, NotNowError where one is refused."""
        async with contextlib.AsyncExitStack() as stack:
            entered = [asyncio.ensure_future(each.__aenter__()) for each in self._generations]
            try:
                await asyncio.gather(*entered)
            except BaseException:
                await _settle(entered)
                for each in self._generations:
                    await each.__aexit__(None, None, None)
                raise
            for each in self._generations:
                stack.push_async_exit(each)
            yield

    async def _merged(self) -> AsyncGenerator[tuple[int, Chunk], None]:
        """(number of the choice, chunk), of all prompts as they come."""
        if len(self._generations) == 1:
            async for chunk in self._generations[0]:
                self._writer.usage.add(0, chunk)
                yield chunk.index, chunk
            return
        merged: asyncio.Queue[tuple[int, Chunk] | None] = asyncio.Queue(1)

        async def feed(prompt: int, generation: Generation) -> None:
            async for chunk in generation:
                await merged.put((prompt, chunk))

        async def feed_all() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for prompt, generation in enumerate(self._generations):
                        group.create_task(feed(prompt, generation))
            except* (RefusedError, NotNowError) as failures:
                raise failures.exceptions[0] from None
            await merged.put(None)

        feeding = asyncio.ensure_future(feed_all())
        try:
            while True:
                taking = asyncio.ensure_future(merged.get())
                await asyncio.wait({taking, feeding}, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    taking.cancel()
                    feeding.result()
                    return
                found = taking.result()
                if found is None:
                    return
                prompt, chunk = found
                self._writer.usage.add(prompt, chunk)
                yield prompt * self._answers + chunk.index, chunk
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})


class EventStream(Response):
    """The stream as an ASGI response. A client that leaves ends the generation at the server."""

    def __init__(self, request: TextRequest, stack: contextlib.AsyncExitStack, inbound: Inbound, exchange: Exchange):
        super().__init__(headers={"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
        del self.headers["content-length"]
        self._request = request
        self._stack = stack
        self._inbound = inbound
        self._exchange = exchange

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""

        async def pump() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with contextlib.aclosing(self._request.events()) as stream:
                async for events in stream:
                    await send({"type": "http.response.body", "body": events, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        async with self._stack:
            try:
                await unless_left(self._inbound, pump())
            except ClientLeftError:
                self._exchange.code = "499"


async def answer(request: TextRequest, inbound: Inbound, exchange: Exchange, *, stream: bool) -> Response:
    """The response, or what goes wrong before its head is sent. Raises RefusedError, NotNowError, ClientLeftError."""
    if not stream:
        return Response(await unless_left(inbound, request.whole()), media_type="application/json")
    stack = contextlib.AsyncExitStack()
    await unless_left(inbound, stack.enter_async_context(request.begun()))
    return EventStream(request, stack, inbound, exchange)


async def _settle(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
