"""Puts the gateway together and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import grpc.aio
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from enginewright_api.errors import TransientError
from enginewright_cluster.port import Cluster

from .edge import App, Edge
from .errors import (
    AnswerableError,
    NotNowError,
    RefusedError,
    is_kserve,
    kserve_body,
    openai_body,
    wire_body,
    wire_headers,
)
from .http_protocol import bounded_protocol
from .inbound import ClientLeftError
from .keys import KeyRing
from .kserve_grpc import grpc_server
from .kserve_http import kserve_router
from .metrics import CONTENT_TYPE, Metrics
from .openai_routes import openai_router
from .pool import PoolLimits
from .pools import Pools
from .routes import RouteTable
from .service import Gateway
from .settings import GatewaySettings
from .upstream import Upstream
from .watch import follow

logger = logging.getLogger("enginewright.gateway")

_SYNC_SECONDS = 2.0
"""So long the first callers of a gateway that just started wait in the queue of the port until models are known."""


def create_gateway(settings: GatewaySettings, table: RouteTable | None = None) -> Gateway:
    """The gateway's parts around a route table. Call it inside the event loop that will serve."""
    table = table or RouteTable()
    limits = PoolLimits(
        inflight_batches=settings.inflight_batches, hold_seconds=settings.hold_seconds, max_held=settings.max_held
    )
    pools = Pools(table, limits)
    return Gateway(
        settings=settings, table=table, pools=pools, metrics=Metrics(pools), keys=KeyRing(settings.keys_dir),
        upstream=Upstream(table, settings.max_body_bytes),
    )  # fmt: skip


def http_app(gateway: Gateway) -> App:
    """The ASGI application: OpenAI, KServe v2, operations."""
    app = FastAPI(title="Enginewright gateway", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(openai_router(gateway))
    app.include_router(kserve_router(gateway))

    @app.get("/healthz")
    async def healthz() -> Response:
        """The process answers."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        """Routes are known and the process is not about to stop."""
        if gateway.draining:
            return Response("draining\n", status_code=503, media_type="text/plain")
        if not gateway.table.synced:
            return Response("models and endpoints not known yet\n", status_code=503, media_type="text/plain")
        return Response("ok\n", media_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(gateway.metrics.text(), media_type=CONTENT_TYPE)

    async def answerable(request: Request, error: Exception) -> Response:
        if not isinstance(error, AnswerableError):
            raise TypeError(f"{type(error).__name__} is not an answer")
        return Response(wire_body(request.url.path, error), status_code=error.status, headers=wire_headers(error))

    async def unknown_route(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = f"{request.method} {request.url.path[:200]} does not exist here" if status == 404 else str(error)
        if status == 405:
            text = f"{request.url.path[:200]} does not take {request.method}"
        reason = "NotFound" if status == 404 else "WrongMethod"
        return await answerable(request, RefusedError(status, reason, text))

    async def internal(request: Request, _error: Exception) -> Response:
        message = "the gateway failed on this request; its log says why"
        path = request.url.path
        body = kserve_body(message) if is_kserve(path) else openai_body(500, "InternalError", message)
        return Response(body, status_code=500, media_type="application/json")

    async def client_left(_request: Request, _error: Exception) -> Response:
        return Response(status_code=499)  # goes nowhere; it is what the log and the metrics show

    app.add_exception_handler(RefusedError, answerable)
    app.add_exception_handler(NotNowError, answerable)
    app.add_exception_handler(HTTPException, unknown_route)
    app.add_exception_handler(ClientLeftError, client_left)
    app.add_exception_handler(Exception, internal)
    return Edge(app, gateway)


class _QuietServer(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process with the signal and not with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield


@dataclass(frozen=True, slots=True)
class Listening:
    """The ports that were opened."""

    address: str
    http_port: int
    grpc_port: int


async def serve(
    cluster: Cluster,
    settings: GatewaySettings,
    *,
    stop: asyncio.Event | None = None,
    listening: asyncio.Future[Listening] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then drain. `listening` gets the ports once both are open.

    Raises TransientError when a port cannot be had.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread: no signals there
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
    with contextlib.closing(_http_socket(settings)) as sock:
        gateway = create_gateway(settings)
        rpc = grpc_server(gateway)
        following = loop.create_task(follow(cluster, gateway.table, settings.namespace), name="follow-cluster")
        try:
            await _first_picture(gateway, following, stop)
            grpc_port = await _open_grpc(rpc, settings)
            server = _uvicorn(gateway)
            web = loop.create_task(server.serve([sock]), name="http")
            opened = Listening(settings.address, sock.getsockname()[1], grpc_port)
            logger.info("listening: %s", opened)
            if listening is not None:
                listening.set_result(opened)
            stopping = loop.create_task(stop.wait(), name="stop")
            await asyncio.wait({stopping, web, following}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await _drain(gateway, server, rpc, web)
            if following.done():
                following.result()
        finally:
            following.cancel()
            await asyncio.wait({following})
            await rpc.stop(None)
            await gateway.upstream.close()


async def _first_picture(gateway: Gateway, following: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Return once models are known, or after a while: a cluster that cannot be asked must not hide /healthz."""
    known, stopping = asyncio.ensure_future(gateway.table.known.wait()), asyncio.ensure_future(stop.wait())
    await asyncio.wait({known, stopping, following}, timeout=_SYNC_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    known.cancel()
    stopping.cancel()


def _http_socket(settings: GatewaySettings) -> socket.socket:
    """Connections are queued from here on, before the server takes them."""
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    try:
        return socket.create_server((settings.address, settings.http_port), family=family, backlog=2048)
    except OSError as error:
        where = f"{settings.address}:{settings.http_port}"
        raise TransientError("PortTaken", f"{where} cannot be opened for HTTP: {error.strerror}") from error


async def _open_grpc(rpc: grpc.aio.Server, settings: GatewaySettings) -> int:
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    try:
        port: int = rpc.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        message = f"{host}:{settings.grpc_port} cannot be opened for gRPC; another program may have it"
        raise TransientError("PortTaken", message) from error
    await rpc.start()
    return port


def _uvicorn(gateway: Gateway) -> uvicorn.Server:
    settings = gateway.settings
    config = uvicorn.Config(
        http_app(gateway),
        http=bounded_protocol(settings.max_header_bytes, settings.header_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    return _QuietServer(config)


async def _drain(gateway: Gateway, server: uvicorn.Server, rpc: grpc.aio.Server, web: asyncio.Task[None]) -> None:
    """Stop being ready, wait until that is known, take nothing new, finish what is under way."""
    gateway.draining = True
    await asyncio.sleep(gateway.settings.drain_delay_seconds)
    server.should_exit = True
    await asyncio.gather(web, rpc.stop(gateway.settings.drain_seconds), return_exceptions=False)
