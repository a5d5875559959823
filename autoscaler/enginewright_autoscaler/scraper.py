"""Reads every gateway's /metrics over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import httpx

from enginewright_api.errors import TransientError
from enginewright_autoscaler.exposition import parse
from enginewright_autoscaler.signals import Signals
from enginewright_cluster.port import ENDPOINT_SLICE, Cluster, UnavailableError

log = logging.getLogger(__name__)

LARGEST_ANSWER_BYTES = 16 * 2**20
SCRAPE_SECONDS = 2.0


class Gateways(Protocol):
    """Where the gateways are."""

    async def urls(self, now: float) -> Sequence[str]:
        """Base URLs, without /metrics."""
        ...


class FixedGateways:
    """A list that does not change: a gateway in it that does not answer makes the signals stale."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)

    async def urls(self, now: float) -> Sequence[str]:
        """The list."""
        return self._urls


class DiscoveredGateways:
    """Ready endpoints of a Service; the last known ones while the cluster does not answer."""

    def __init__(self, cluster: Cluster, *, namespace: str, service: str, every_seconds: float = 5.0) -> None:
        self._cluster, self._namespace, self._service = cluster, namespace, service
        self._every_seconds = every_seconds
        self._known: tuple[str, ...] = ()
        self._looked_at: float | None = None

    async def urls(self, now: float) -> Sequence[str]:
        """Looks again when the last look is old."""
        if self._looked_at is not None and 0 <= now - self._looked_at < self._every_seconds:
            return self._known
        try:
            slices = await self._cluster.list(
                ENDPOINT_SLICE,
                namespace=self._namespace,
                labels={"kubernetes.io/service-name": self._service},
            )
        except UnavailableError as problem:
            log.warning("endpoints of %s/%s are unknown: %s", self._namespace, self._service, problem.message)
            return self._known
        self._looked_at = now
        self._known = tuple(sorted({url for each in slices for url in _urls_of(each)}))
        return self._known


def _urls_of(slice_: Mapping[str, Any]) -> list[str]:
    ports = [port for port in slice_.get("ports") or [] if port.get("port")]
    named = [port for port in ports if port.get("name") == "http"] or ports
    if not named:
        return []
    ready = [
        endpoint
        for endpoint in slice_.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready") is not False
    ]
    port = named[0]["port"]
    addresses = [address for endpoint in ready for address in endpoint.get("addresses") or []]
    return [f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}" for address in addresses]


class Scraper:
    """One round over all gateways at a time; what cannot be read changes nothing, so the figures age."""

    def __init__(
        self,
        gateways: Gateways,
        signals: Signals,
        *,
        client: httpx.AsyncClient,
        clock: Callable[[], float],
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._gateways, self._signals = gateways, signals
        self._client, self._clock, self._failed = client, clock, failed
        self._failing: set[str] = set()

    async def round(self) -> None:
        """Read every gateway once, all at the same time."""
        urls = await self._gateways.urls(self._clock())
        self._signals.expect(urls, self._clock())
        await asyncio.gather(*(self._one(url) for url in urls))

    async def _one(self, url: str) -> None:
        asked_at = self._clock()
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                scrape = parse(await self._text(url))
        except (TransientError, httpx.HTTPError, httpx.InvalidURL, UnicodeDecodeError, TimeoutError) as problem:
            self._failed(url)
            if url not in self._failing:
                log.warning("metrics of %s cannot be read: %s %s", url, type(problem).__name__, problem)
                self._failing.add(url)
            return
        if url in self._failing:
            log.info("metrics of %s can be read again", url)
            self._failing.discard(url)
        self._signals.add(url, scrape, asked_at)

    async def _text(self, url: str) -> str:
        async with self._client.stream("GET", f"{url}/metrics") as response:
            response.raise_for_status()
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LARGEST_ANSWER_BYTES:
                    raise TransientError(
                        "MetricsTooLarge", f"{url}/metrics is larger than {LARGEST_ANSWER_BYTES} bytes"
                    )
        return body.decode()
