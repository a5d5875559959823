"""Requests to an API server: bounded in time, number and rate, observed, and failing with errors of the port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from enginewright_api.errors import DeterministicError

from .kubernetes_access import Access
from .kubernetes_errors import Target, error_for
from .port import Object, UnavailableError
from .rate_limit import RateLimit

REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 10.0
PARALLEL_REQUESTS = 64
"""Enough to keep an API server busy, few enough that it does not queue or refuse us; watches come on top."""

_TRIES_WHEN_TOLD_TO_WAIT = 3
_LONGEST_WAIT_SECONDS = 10.0
_SILENCE_SECONDS, _PROBE_SECONDS, _PROBES = 15, 5, 3


@dataclass(frozen=True, slots=True)
class Call:
    """One call, for metrics. `code` is the HTTP status, 0 when no answer came; a watch is timed until it opens."""

    verb: str
    plural: str
    code: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Question:
    """What is sent."""

    target: Target
    method: str
    url: URL
    seconds: float
    data: bytes | None = None
    content_type: str = "application/json"


Observer = Callable[[Call], None]


def _ignore(_: Call) -> None:
    """Observe nothing."""


class Connection:
    """An HTTP client to one API server."""

    def __init__(self, access: Access, observe: Observer | None = None, limit: RateLimit | None = None) -> None:
        self._access = access
        self._limit = limit
        self._observe = observe or _ignore
        self._slots = asyncio.Semaphore(PARALLEL_REQUESTS)
        # The semaphore is the limit, not the pool: time spent waiting for a turn is not the API server's delay.
        connector = aiohttp.TCPConnector(limit=0, ssl=access.tls, socket_factory=_noticing_dead_peers)
        # Not trust_env: the library would read ~/.netrc before each request, and send what it finds there.
        self._session = aiohttp.ClientSession(connector=connector)
        self._proxy = access.proxy or _proxy_of_environment(access.server)

    async def request(
        self,
        target: Target,
        method: str,
        *,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        uid: str | None = None,
    ) -> bytes:
        """The answer's body. Waits and asks again where the server says so (429), else raises the port's errors."""
        question = _Question(
            target,
            method,
            self._url(target, subresource, query),
            REQUEST_SECONDS,
            data=None if body is None else json.dumps(body).encode(),
            content_type=content_type,
        )
        async with self._slots:
            tries = 0
            while True:
                tries += 1
                if self._limit is not None:
                    await self._limit.turn()
                async with self._answer(question) as response:
                    answer = await response.read()
                    if response.status < 400:
                        return answer
                    wait_seconds = _asked_wait_seconds(response)
                    if wait_seconds is None or tries == _TRIES_WHEN_TOLD_TO_WAIT:
                        raise error_for(target, response.status, answer, uid=uid)
                await asyncio.sleep(wait_seconds)

    async def lines(self, target: Target, query: Mapping[str, str], *, seconds: float) -> AsyncGenerator[bytes, None]:
        """Lines of a streamed answer as they come, for at most `seconds`. Objects may be longer than any buffer."""
        async with self._answer(_Question(target, "GET", self._url(target, None, query), seconds)) as response:
            if response.status >= 400:
                raise error_for(target, response.status, await response.read())
            pending = b""
            async for chunk in response.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    yield line

    async def close(self) -> None:
        """Release connections."""
        await self._session.close()

    @contextlib.asynccontextmanager
    async def _answer(self, question: _Question) -> AsyncIterator[aiohttp.ClientResponse]:
        """One answer, whatever its code, with failures to get or to read it as the port's errors."""
        target, server = question.target, self._access.server
        clock = asyncio.get_running_loop().time
        began, code = clock(), 0
        try:
            authorization = await self._access.authorization()
            response = await self._send(question, authorization)
            if response.status == 401 and await self._access.renew(authorization):
                response.release()
                response = await self._send(question, await self._access.authorization())
            code = response.status
            self._observe(Call(target.verb, target.kind.plural, code, clock() - began))
            async with response:
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            cause = f"{error.certificate_error}; check certificate-authority and server in the kubeconfig"
            raise DeterministicError("UntrustedServer", f"{target}: {server}: {cause}") from error
        except (aiohttp.ClientError, OSError) as error:
            cause = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise UnavailableError("Unreachable", f"{target}: {server}: {cause}") from error
        finally:
            if not code:
                self._observe(Call(target.verb, target.kind.plural, 0, clock() - began))

    async def _send(self, question: _Question, authorization: str | None) -> aiohttp.ClientResponse:
        # Uncompressed: between machines of one cluster, gzip costs both ends more time than the bytes do.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "enginewright"}
        if authorization:
            headers["Authorization"] = authorization
        if question.data is not None:
            headers["Content-Type"] = question.content_type
        return await self._session.request(
            question.method,
            question.url,
            data=question.data,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=question.seconds, sock_connect=CONNECT_SECONDS),
            proxy=self._proxy,
            server_hostname=self._access.tls_server_name,
            allow_redirects=False,
        )

    def _url(self, target: Target, subresource: str | None, query: Mapping[str, str] | None) -> URL:
        version = target.kind.api_version
        parts = ["apis" if "/" in version else "api", *version.split("/")]
        if target.namespace is not None:
            parts += ["namespaces", target.namespace]
        parts += [part for part in (target.kind.plural, target.name, subresource) if part is not None]
        return URL(self._access.server).joinpath(*parts).with_query(query)


def _proxy_of_environment(server: str) -> str | None:
    """What HTTPS_PROXY or HTTP_PROXY name for this server, unless NO_PROXY names the server."""
    url = URL(server)
    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)


def _asked_wait_seconds(response: aiohttp.ClientResponse) -> float | None:
    """How long a server that refused to begin (429) asks to wait; None when it does not, or for too long."""
    asked = response.headers.get("Retry-After", "")
    if response.status != 429 or not asked.isdigit() or int(asked) > _LONGEST_WAIT_SECONDS:
        return None
    return float(asked)


def _noticing_dead_peers(address: tuple[Any, ...]) -> socket.socket:
    """A socket that finds out within half a minute that the other machine is gone; a quiet watch would not."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _SILENCE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
    ):
        if hasattr(socket, option):  # macOS has other names for some
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


def decoded(target: Target, body: bytes) -> Object:
    """A JSON answer."""
    try:
        decoded_body = orjson.loads(body)
    except ValueError as error:
        raise UnavailableError("NotAnApiServer", f"{target}: the answer is not JSON: {error}") from error
    if not isinstance(decoded_body, dict):
        raise UnavailableError("NotAnApiServer", f"{target}: the answer is not a JSON object")
    return decoded_body
