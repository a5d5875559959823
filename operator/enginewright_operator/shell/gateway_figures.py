"""Asks every gateway what it has counted of a canary. Nothing is kept: each answer holds the whole window."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from enginewright_api.errors import TransientError
from enginewright_api.metrics import (
    CANARY_BUCKETS_SECONDS,
    CANARY_FAILURES_TOTAL,
    CANARY_REQUEST_SECONDS,
    CANARY_REQUESTS_TOTAL,
)
from enginewright_cluster.port import ENDPOINT_SLICE, Cluster

from ..core.traffic import Answers, Traffic

log = logging.getLogger(__name__)

ASK_SECONDS = 2.0
LARGEST_ANSWER_BYTES = 16 * 2**20
SERVICE_LABEL = "kubernetes.io/service-name"


class TrafficLookup(Protocol):
    """What the gateways say of one model's canary."""

    async def find(self, model: str, window: str) -> Traffic | None:
        """`model` is `namespace/name`. None when there is no gateway to ask."""
        ...


class GatewayFigures:
    """Reads /metrics of the gateways. One that does not answer is named as silent, so a part is never taken for all."""

    def __init__(self, cluster: Cluster, gateways: Sequence[str]) -> None:
        """`gateways`: base URLs, or `namespace/name` of a Service whose ready endpoints are all asked."""
        self._cluster = cluster
        self._gateways = tuple(gateways)

    async def find(self, model: str, window: str) -> Traffic | None:
        """Sum over all gateways of what they counted in this window."""
        urls = await self._urls()
        if not urls:
            return None
        async with httpx.AsyncClient(timeout=ASK_SECONDS, trust_env=False) as client:
            told = await asyncio.gather(*(self._ask(client, url, model, window) for url in urls))
        versions = [found for found in told if found is not None]
        return Traffic(
            window=window,
            stable=_sum(found.stable for found in versions),
            canary=_sum(found.canary for found in versions),
            gateways=len(urls),
            silent=tuple(url for url, found in zip(urls, told, strict=True) if found is None),
        )

    async def _urls(self) -> list[str]:
        found: list[str] = []
        for gateway in self._gateways:
            if "://" in gateway:
                found.append(gateway.rstrip("/"))
                continue
            namespace, _, service = gateway.partition("/")
            labels = {SERVICE_LABEL: service}
            for item in await self._cluster.list(ENDPOINT_SLICE, namespace=namespace, labels=labels):
                found += _addresses(item)
        return sorted(set(found))

    async def _ask(self, client: httpx.AsyncClient, url: str, model: str, window: str) -> Versions | None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return versions_in(await _text(client, url), model, window)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, TransientError) as error:
            log.warning("a gateway's metrics cannot be read", extra={"gateway": url, "error": repr(error)[:200]})
            return None


@dataclass(frozen=True, slots=True)
class Versions:
    """Both versions as one gateway counted them."""

    stable: Answers
    canary: Answers


def versions_in(text: str, model: str, window: str) -> Versions | None:
    """What a /metrics answer says of a model's canary; None when it does not know this window.

    Raises ValueError for text that is not in Prometheus' format, or with other buckets than ours.
    """
    counts: dict[tuple[str, str], float] = {}
    buckets: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("model") != model or labels.get("window") != window:
                continue
            version = labels.get("version", "")
            if sample.name == f"{CANARY_REQUEST_SECONDS}_bucket":
                buckets.setdefault(version, {})[labels["le"]] = sample.value
            else:
                counts[version, sample.name] = sample.value
    if not {("stable", CANARY_REQUESTS_TOTAL), ("canary", CANARY_REQUESTS_TOTAL)} <= counts.keys():
        return None
    stable, canary = (
        Answers(
            requests=int(counts[version, CANARY_REQUESTS_TOTAL]),
            failures=int(counts.get((version, CANARY_FAILURES_TOTAL), 0)),
            buckets=_counts(buckets.get(version, {})),
        )
        for version in ("stable", "canary")
    )
    return Versions(stable, canary)


def _counts(cumulative: Mapping[str, float]) -> tuple[int, ...]:
    bounds = [*(repr(bound) for bound in CANARY_BUCKETS_SECONDS), "+Inf"]
    if set(cumulative) != set(bounds):
        raise ValueError("the buckets of its canaries are other ones than the operator's: update the older of the two")
    values = [int(cumulative[bound]) for bound in bounds]
    return tuple(value - before for value, before in zip(values, [0, *values], strict=False))


def _sum(answers: Iterable[Answers]) -> Answers:
    total = Answers()
    for each in answers:
        total += each
    return total


async def _text(client: httpx.AsyncClient, url: str) -> str:
    async with client.stream("GET", f"{url}/metrics") as response:
        response.raise_for_status()
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LARGEST_ANSWER_BYTES:
                raise TransientError("MetricsTooLarge", f"{url}/metrics is larger than {LARGEST_ANSWER_BYTES} bytes")
    return body.decode()


def _addresses(item: Mapping[str, Any]) -> list[str]:
    """Base URLs of a slice's ready endpoints."""
    ports = [port for port in item.get("ports") or () if port.get("name") == "http" and port.get("port")]
    if not ports:
        return []
    ready = [each for each in item.get("endpoints") or () if (each.get("conditions") or {}).get("ready") is not False]
    found = [address for endpoint in ready for address in endpoint.get("addresses") or ()]
    return [f"http://[{one}]:{ports[0]['port']}" if ":" in one else f"http://{one}:{ports[0]['port']}" for one in found]
