"""The parts that every surface shares, and the one way a request reaches a server: admitted, sent, sent elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import aiohttp
import grpc
import grpc.aio

from .comparison import Attempt, Tally
from .errors import NotNowError, RefusedError
from .exchange import Exchange
from .grpc_errors import http_code, server_code
from .inbound import ClientLeftError
from .keys import KeyRing
from .metrics import Metrics
from .pools import Pools
from .routes import Endpoint, RouteTable, ServedModel
from .settings import GatewaySettings
from .triton_errors import connection_lost, is_engine_gone, is_queue_full, never_connected
from .upstream import Metadata, Upstream

T = TypeVar("T")

_ATTEMPTS = 3
"""A request that ends three servers is more likely the cause than the victim."""


class Fault(Enum):
    """How an endpoint failed a request."""

    BUSY = "it answers, and refuses for now"
    NO_CONNECTION = "it could not be reached, so it never had the request"
    BROKE_OFF = "the connection ended without an answer"
    ENGINE_GONE = "the server answers, but the process that runs its model has ended"


class EndpointFailedError(Exception):
    """The server did not answer and nothing reached the client: another server may be asked."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.message = message
        self.fault = fault

    def may_be_caused(self, *, broken_before: bool) -> bool:
        """Whether the request itself may have ended the server. Not when it found the server so."""
        return self.fault is Fault.BROKE_OFF or (self.fault is Fault.ENGINE_GONE and not broken_before)


@contextlib.contextmanager
def counted(exchange: Exchange, tally: Tally | None, clock: Callable[[], float]) -> Iterator[None]:
    """Counts what a server makes of a request for its version, where there is a canary.

    A failure counts at once: another server may answer, and then the client will have noticed nothing.
    """
    began = clock()
    try:
        yield
    except Exception as error:
        if tally is not None and exchange.inference and _is_servers_fault(error):
            tally.failed()
        raise
    if tally is not None:
        exchange.attempts.append(Attempt(tally, clock() - began))


def _is_servers_fault(error: Exception) -> bool:
    """Not what the caller did wrong, and not a full queue."""
    match error:
        case EndpointFailedError():
            return error.fault is not Fault.BUSY
        case grpc.aio.AioRpcError():
            return http_code(server_code(error)).startswith("5")
        case NotNowError():
            return error.status >= 500
        case _:
            return not isinstance(error, RefusedError | ClientLeftError)


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

        A server that was broken before this request came to it is waited for, as one that is not there yet.
        `deadline` is on `clock`. Raises NotNowError when there is no room, no endpoint or no answer.
        """
        pool = self.pools.of(model)
        tried: frozenset[Endpoint] = frozenset()
        patience = self.clock() + self.settings.hold_seconds
        attempts = 0
        while True:
            within = None if deadline is None else max(0.0, deadline - self.clock())
            with await pool.acquire(within_seconds=within, tried=tried) as lease:
                exchange.endpoint = str(lease.endpoint)
                broken_before = pool.is_suspect(lease.endpoint)
                try:
                    with counted(exchange, lease.tally, self.clock):
                        answer = await send(lease.endpoint)
                except EndpointFailedError as error:
                    failure = error
                    attempts += error.fault is Fault.BUSY or error.may_be_caused(broken_before=broken_before)
                    if error.fault is Fault.BUSY:
                        tried |= {lease.endpoint}
                    else:
                        pool.unreachable(lease.endpoint)
                else:
                    lease.answered()
                    return answer
            # An endpoint that cannot be reached rests; waiting for it or its successor is as good as another one.
            elsewhere = failure.fault is not Fault.BUSY or pool.others(tried)
            if attempts >= _ATTEMPTS or not repeatable() or not elsewhere or self.clock() >= patience:
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
                fault = self.fault_of(endpoint, error)
                if fault is None:
                    raise
                raise EndpointFailedError(error.details() or "the server is unavailable", fault) from error

        return await self.with_endpoint(model, exchange, send, deadline=deadline)

    def fault_of(self, endpoint: Endpoint, error: grpc.aio.AioRpcError) -> Fault | None:
        """None for an answer to this request, which another server would give as well."""
        details = error.details() or ""
        if is_engine_gone(details):
            return Fault.ENGINE_GONE
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return None
        if never_connected(details):
            return Fault.NO_CONNECTION
        lost = connection_lost(details) or not self.upstream.connected(endpoint)
        return Fault.BROKE_OFF if lost else Fault.BUSY


def connection_failure(error: aiohttp.ClientError | OSError | asyncio.TimeoutError) -> EndpointFailedError:
    """An HTTP connection that could not be made, or broke before the head of the answer."""
    unmade = isinstance(error, aiohttp.ClientConnectorError)
    fault = Fault.NO_CONNECTION if unmade else Fault.BROKE_OFF
    return EndpointFailedError(f"the connection to its server failed ({type(error).__name__})", fault)
