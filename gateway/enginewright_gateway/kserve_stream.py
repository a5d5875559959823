"""ModelStreamInfer: one stream from the client, one stream to a server for each model in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from . import wire
from .errors import NotNowError, RefusedError
from .exchange import Exchange, finish
from .grpc_errors import http_code, server_code
from .headers import find_model
from .keys import Caller
from .routes import ServedModel
from .service import Gateway
from .upstream import Metadata

_ERROR_MESSAGE = 1  # ModelStreamInferResponse.error_message
_WAITING_MESSAGES = 16

Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Opening:
    """Who opened the stream, and with which metadata."""

    caller: Caller
    metadata: Mapping[str, str]
    passed_on: Metadata


class _Leg:
    """The part of a stream that goes to one model."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING_MESSAGES)
        self.task: asyncio.Task[None] | None = None


async def relay_stream(gateway: Gateway, context: Any, opening: Opening) -> None:
    """Relay until the client has ended its side and every server has answered.

    A refused message is answered with `error_message` and the stream goes on, as tritonserver does it. An open leg
    counts as one request at its endpoint. What a broken server had not answered cannot be repeated: the gateway does
    not keep stream messages.
    """
    legs: dict[str, _Leg] = {}
    writing = asyncio.Lock()

    async def write(message: bytes) -> None:
        async with writing:
            await context.write(message)

    async def refuse(message: str) -> None:
        await write(wire.string_field(_ERROR_MESSAGE, message))

    async def run(name: str, leg: _Leg) -> None:
        exchange = Exchange(protocol="grpc", method="ModelStreamInfer", path="", inference=True)
        began = gateway.clock()
        status = grpc.StatusCode.CANCELLED
        try:
            model = find_model(gateway, opening.metadata, opening.caller, name, exchange)
            await _relay_leg(gateway, model, exchange, opening.passed_on, leg, write, asked=name)
            status = grpc.StatusCode.OK
        except (RefusedError, NotNowError) as error:
            status = grpc.StatusCode.INVALID_ARGUMENT if error.status < 500 else grpc.StatusCode.UNAVAILABLE
            await refuse(error.message)
        except grpc.aio.AioRpcError as error:
            status = server_code(error)
            await refuse(error.details() or "the model's server ended the stream")
        finally:
            legs.pop(name, None)
            finish(exchange, gateway.metrics, http_code(status), gateway.clock() - began)

    async with asyncio.TaskGroup() as group:
        while (message := await context.read()) is not grpc.aio.EOF:
            try:
                name = wire.first_string(message)
            except RefusedError as error:
                await refuse(error.message)
                continue
            leg = legs.get(name)
            if leg is None:
                leg = legs[name] = _Leg()
                leg.task = group.create_task(run(name, leg))
            await _put(leg, message)
        for leg in list(legs.values()):
            await _put(leg, None)


async def _put(leg: _Leg, message: bytes | None) -> None:
    """Into the leg's inbox, unless the leg ends first: then its error message has answered for it."""
    if leg.task is None:
        return
    put = asyncio.ensure_future(leg.inbox.put(message))
    await asyncio.wait({put, leg.task}, return_when=asyncio.FIRST_COMPLETED)
    if not put.done():
        put.cancel()


async def _relay_leg(  # noqa: PLR0917 - all of it is needed
    gateway: Gateway,
    model: ServedModel,
    exchange: Exchange,
    passed_on: Metadata,
    leg: _Leg,
    write: Write,
    *,
    asked: str,
) -> None:
    pool = gateway.pools.of(model)
    with await pool.acquire() as lease:
        exchange.endpoint = str(lease.endpoint)
        call = gateway.upstream.stream(lease.endpoint, "ModelStreamInfer", passed_on)

        async def feed() -> None:
            while (message := await leg.inbox.get()) is not None:
                await call.write(wire.renamed(message, asked, model.name))
            await call.done_writing()

        feeding = asyncio.ensure_future(feed())
        try:
            while (answer := await call.read()) is not grpc.aio.EOF:
                lease.answered()
                await write(answer)
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                if code is grpc.StatusCode.UNAVAILABLE and not gateway.upstream.connected(lease.endpoint):
                    pool.unreachable(lease.endpoint)
                raise NotNowError(503, "ServerFailed", await call.details() or "the model's server ended the stream")
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})
            call.cancel()
