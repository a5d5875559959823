"""Pooled connections to the servers: HTTP for what comes as HTTP, gRPC for the rest. Bytes in, bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp
import grpc
import grpc.aio

from .routes import Endpoint, RouteTable, ServedModel

SERVICE = "inference.GRPCInferenceService"
_CONNECT_SECONDS = 2.0
_IDLE_SECONDS = 30.0

Metadata = Sequence[tuple[str, str | bytes]]


class Upstream:
    """One gRPC channel an endpoint and one HTTP connection pool. Made inside the running event loop."""

    def __init__(self, table: RouteTable, max_message_bytes: int) -> None:
        self._table = table
        self._channels: dict[Endpoint, grpc.aio.Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._options = [
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", -1),
            # A server that comes back at its old address is found again soon, not after gRPC's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),
            # Every endpoint has a connection of its own, also when two gateways share a process.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
        table.listen(self._changed)

    async def request(
        self, endpoint: Endpoint, method: str, path: str, headers: Mapping[str, str], body: AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        """Send; returns with the head of the answer. Raises aiohttp.ClientError. The caller releases the answer."""
        url = f"http://{endpoint.host}:{endpoint.http_port}{path}"
        return await self._http.request(method, url, headers=headers, data=body, allow_redirects=False)

    async def unary(
        self, endpoint: Endpoint, method: str, message: bytes, *, timeout_seconds: float | None, metadata: Metadata = ()
    ) -> bytes:
        """One gRPC call; cancelling it cancels the request in the server. Raises grpc.aio.AioRpcError."""
        call = self.channel(endpoint).unary_unary(f"/{SERVICE}/{method}")
        answer: bytes = await call(message, timeout=timeout_seconds, metadata=tuple(metadata))
        return answer

    def stream(self, endpoint: Endpoint, method: str, metadata: Metadata) -> grpc.aio.StreamStreamCall:
        """Open a bidirectional stream."""
        call = self.channel(endpoint).stream_stream(f"/{SERVICE}/{method}")
        return call(metadata=tuple(metadata))

    def channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        """The endpoint's channel, opened when first needed."""
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = grpc.aio.insecure_channel(f"{endpoint.host}:{endpoint.grpc_port}", options=self._options)
            self._channels[endpoint] = channel
        return channel

    def connected(self, endpoint: Endpoint) -> bool:
        """Whether the gRPC channel has a live connection: tells a dead server from one that answers UNAVAILABLE."""
        return self.channel(endpoint).get_state() is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()
        for channel in self._channels.values():
            await channel.close()
        if self._closing:
            await asyncio.gather(*self._closing)

    def _changed(self, _model_id: str, _model: ServedModel | None) -> None:
        listed = {endpoint for model in self._table.models() for endpoint in model.all_endpoints}
        for endpoint in [known for known in self._channels if known not in listed]:
            # Calls under way may still finish; a server that leaves has its own grace period for them.
            task = asyncio.get_running_loop().create_task(self._channels.pop(endpoint).close(grace=60.0))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
