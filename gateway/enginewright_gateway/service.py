"""The parts that every surface shares, and the one way a request reaches a server: admitted, sent, sent elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
import grpc
import grpc.aio

from .errors import NotNowError
from .exchange import Exchange
from .keys import KeyRing
from .metrics import Metrics
from .pools import Pools
from .routes import Endpoint, RouteTable, ServedModel
from .settings import GatewaySettings
from .triton_errors import is_queue_full
from .upstream import Metadata, Upstream

T = TypeVar("T")

_ATTEMPTS = 3
"""A request that ends three servers' connections is more likely the cause than the victim."""


class EndpointFailedError(Exception):
    """The server did not answer and nothing reached the client: another server may be asked."""

    def __init__(self, message: str, *, unreachable: bool) -> None:
        super().__init__(message)
        self.message = message
        self.unreachable = unreachable


@dataclass(slots=True)
class Gateway:
    """Everything a handler needs."""

    settings: GatewaySettings
    table: RouteTable
    pools: Pools
    metrics: Metrics
    keys: KeyRing
    upstream: Upstream
    draining: bool = False
    clock: Callable[[], float] = field(default=time.monotonic)

    async def with_endpoint(
        self,
        model: ServedModel,
        exchange: Exchange,
        send: Callable[[Endpoint], Awaitable[T]],
        *,
        deadline: float | None = None,
        repeatable: Callable[[], bool] = lambda: True,
    ) -> T:
        """Run `send` at the endpoint with the least work; after EndpointFailedError at another, while repeatable.

        `deadline` is on `clock`. Raises NotNowError when there is no room, no endpoint or no answer.
        """
        pool = self.pools.of(model)
        tried: frozenset[Endpoint] = frozenset()
        for attempt in range(_ATTEMPTS):
            within = None if deadline is None else max(0.0, deadline - self.clock())
            with await pool.acquire(within_seconds=within, tried=tried) as lease:
                try:
                    answer = await send(lease.endpoint)
                except EndpointFailedError as error:
                    failure = error
                    if error.unreachable:
                        pool.unreachable(lease.endpoint)
                    else:
                        tried |= {lease.endpoint}
                else:
                    lease.answered()
                    return answer
            # An endpoint that cannot be reached rests; waiting for it or its successor is as good as another one.
            elsewhere = failure.unreachable or pool.others(tried)
            if attempt + 1 == _ATTEMPTS or not repeatable() or not elsewhere:
                break
            exchange.retries += 1
        wait = pool.retry_after()
        if is_queue_full(failure.message):
            raise NotNowError(
                429, "QueueFull", f"model {model.id}: all its servers' queues are full; try again in {wait:.0f} s",
                retry_after_seconds=wait,
            )  # fmt: skip
        raise NotNowError(
            503, "ServerFailed", f"model {model.id}: {failure.message}; try again", retry_after_seconds=wait
        )

    async def infer(
        self,
        model: ServedModel,
        exchange: Exchange,
        method: str,
        message: bytes,
        *,
        deadline: float | None = None,
        metadata: Metadata = (),
    ) -> bytes:
        """One unary gRPC call to the model's servers. Raises NotNowError; AioRpcError for what the server refused."""

        async def send(endpoint: Endpoint) -> bytes:
            left = None if deadline is None else max(0.0, deadline - self.clock())
            try:
                return await self.upstream.unary(endpoint, method, message, timeout_seconds=left, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    gone = not self.upstream.connected(endpoint)
                    raise EndpointFailedError(
                        error.details() or "the server is unavailable", unreachable=gone
                    ) from error
                raise

        return await self.with_endpoint(model, exchange, send, deadline=deadline)


def connection_failure(error: aiohttp.ClientError | OSError | asyncio.TimeoutError) -> EndpointFailedError:
    """An HTTP connection that broke before the head of the answer."""
    return EndpointFailedError(f"the connection to its server failed ({type(error).__name__})", unreachable=True)
