"""Text from a model's servers: one gRPC stream a prompt, repeated elsewhere as long as nothing has come of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import grpc
import grpc.aio

from enginewright_api.names import CALLERS_FAULT

from .errors import NotNowError
from .exchange import Exchange
from .grpc_errors import from_server, refused_by, too_late
from .routes import Endpoint, ServedModel
from .service import EndpointFailedError, Fault, Gateway
from .triton_errors import is_engine_gone, is_queue_full
from .upstream import Metadata
from .wire import Input, StreamAnswer, scalars_request, stream_answer

_CHUNKS_AHEAD = 32
"""Chunks kept for a client that reads slowly; then the server's stream waits as well."""

_ENDS = frozenset({"stop", "length"})


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one response of the server says."""

    index: int
    text: str
    finish_reason: str
    """Empty while the answer goes on."""
    prompt_tokens: int
    completion_tokens: int
    """Of this answer so far."""
    cached_tokens: int
    """Negative where the server does not know."""
    token_ids: list[int]
    logprobs: list[float] = field(default_factory=list)
    token_bytes: list[bytes] = field(default_factory=list)


class Generation:
    """One prompt at work: `async with` it and iterate. Leaving the block ends the request at the server.

    Raises, when entered or iterated, NotNowError and RefusedError; after chunks came nothing is repeated.
    """

    def __init__(
        self,
        gateway: Gateway,
        model: ServedModel,
        inputs: Sequence[Input],
        answers: int,
        exchange: Exchange,
        *,
        deadline: float | None,
        metadata: Metadata = (),
    ) -> None:
        self._gateway = gateway
        self._model = model
        self._message = scalars_request(model.name, inputs)
        self._answers = answers
        self._exchange = exchange
        self._deadline = deadline
        self._metadata = metadata  # never triton_grpc_error: errors as a stream's status can end the server (SIGSEGV)
        self._began = gateway.clock()
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue(_CHUNKS_AHEAD)
        self._task: asyncio.Task[None] | None = None
        self._first: Chunk | None = None
        self._last_seconds: dict[int, float] = {}
        self._completion_tokens: dict[int, int] = {}

    async def __aenter__(self) -> Generation:
        self._task = asyncio.create_task(self._run(), name="generation")
        try:
            self._first = await self._next()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        chunk = self._first
        while chunk is not None:
            yield chunk
            chunk = await self._next()

    async def _next(self) -> Chunk | None:
        chunk = await self._chunks.get()
        if chunk is None and self._task is not None:
            await self._task  # raises what ended it
        return chunk

    async def _end(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._gateway.with_endpoint(
                self._model,
                self._exchange,
                self._attempt,
                deadline=self._deadline,
                repeatable=lambda: not self._started,
            )
        finally:
            with contextlib.suppress(asyncio.QueueFull):
                if self._chunks.full() and self._task is not None and self._task.cancelling():
                    self._chunks.get_nowait()
                self._chunks.put_nowait(None)

    @property
    def _started(self) -> bool:
        return bool(self._completion_tokens)

    async def _attempt(self, endpoint: Endpoint) -> None:
        left = None if self._deadline is None else max(0.0, self._deadline - self._gateway.clock())
        call = self._gateway.upstream.stream(endpoint, "ModelStreamInfer", self._metadata)
        open_answers = self._answers
        try:
            # Not left to the call: one that ends while it is being written to does not say why.
            async with asyncio.timeout(left):
                await self._write(call)
                async for message in call:
                    answer = stream_answer(message)
                    if answer.error:
                        raise self._failure(answer.error)
                    if not answer.numbers:
                        continue
                    chunk = self._chunk(answer)
                    open_answers -= chunk.finish_reason in _ENDS
                    await self._chunks.put(chunk)
        except TimeoutError as error:
            raise too_late(self._model) from error
        except grpc.aio.AioRpcError as error:
            raise self._status(endpoint, error) from error
        finally:
            call.cancel()
        if open_answers:
            raise EndpointFailedError("its server ended the stream before the answer was whole", Fault.BROKE_OFF)

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        try:
            await call.write(self._message)
            await call.done_writing()
        except (grpc.aio.InternalError, asyncio.InvalidStateError) as error:  # the stream ended meanwhile
            raise EndpointFailedError("the connection to its server failed", Fault.BROKE_OFF) from error
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INTERNAL:
                raise
            raise EndpointFailedError("the connection to its server failed", Fault.BROKE_OFF) from error

    def _status(self, endpoint: Endpoint, error: grpc.aio.AioRpcError) -> Exception:
        details = error.details() or ""
        fault = self._gateway.fault_of(endpoint, error)
        if fault is None:
            return from_server(self._model, error)
        return EndpointFailedError(details or "the server is unavailable", fault)

    def _failure(self, message: str) -> Exception:
        if message.startswith(CALLERS_FAULT):
            return refused_by(self._model, message.removeprefix(CALLERS_FAULT))
        if is_queue_full(message):
            return EndpointFailedError(message, Fault.BUSY)
        if is_engine_gone(message):
            return EndpointFailedError(message, Fault.ENGINE_GONE)
        return NotNowError(500, "ModelFailed", f"model {self._model.id} failed: {message}")

    def _chunk(self, answer: StreamAnswer) -> Chunk:
        try:
            numbers, texts = answer.numbers, answer.texts
            chunk = Chunk(
                index=numbers["index"][0],
                text=texts["text_output"][0].decode(),
                finish_reason=texts["finish_reason"][0].decode(),
                prompt_tokens=numbers["prompt_tokens"][0],
                completion_tokens=numbers["completion_tokens"][0],
                cached_tokens=numbers["cached_tokens"][0],
                token_ids=numbers["token_ids"],
                logprobs=numbers.get("logprobs", []),
                token_bytes=texts.get("token_bytes", []),
            )
        except (KeyError, IndexError, UnicodeDecodeError) as error:
            raise NotNowError(
                502, "MalformedAnswer", f"model {self._model.id}: the server's answer lacks an output ({error})"
            ) from error
        self._measure(chunk)
        return chunk

    def _measure(self, chunk: Chunk) -> None:
        metrics, model, now = self._gateway.metrics, self._model.id, self._gateway.clock()
        if not self._started:
            metrics.first_token(model, now - self._began)
            self._exchange.prompt_tokens += chunk.prompt_tokens
        before = self._completion_tokens.get(chunk.index, 0)
        new = chunk.completion_tokens - before
        if chunk.index in self._last_seconds and new > 0:
            metrics.more_tokens(model, new, now - self._last_seconds[chunk.index])
        self._last_seconds[chunk.index] = now
        self._completion_tokens[chunk.index] = chunk.completion_tokens
        self._exchange.completion_tokens += new
