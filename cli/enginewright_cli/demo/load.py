"""`demo --load`: bounded load on the local gateway, and the replicas that follow it up and down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from enginewright_api.errors import TransientError
from enginewright_cli.output import console
from enginewright_cluster.port import OPTIMIZED_MODEL, Cluster, Ref

CLIENTS = 24
LOAD_SECONDS = 60.0
"""At most; less when all replicas are there and have had load for a moment."""
FULL_SECONDS = 5.0
QUIET_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_TEXTS = [" ".join(["A sentence that keeps a small encoder busy for a moment, so that requests queue up."] * 4)] * 4
"""Of each request: fewer, and the clients would keep these cores busier than the servers."""


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    answered: int = 0
    busy: int = 0
    failures: list[str] = field(default_factory=list)


async def watch_scaling(cluster: Cluster, url: str, model: str, namespace: str) -> None:
    """Load until every replica that the model may have is there, then quiet; tells each change of the count.

    Raises TransientError when a request failed, or when the replicas did not come or did not go again.
    """
    ref = Ref(OPTIMIZED_MODEL, model, namespace)
    spec = (await cluster.get(ref))["spec"]
    scaling = spec.get("scaling") or {}
    least, most = int(scaling.get("minReplicas", 1)), int(scaling.get("maxReplicas", 1))
    console.print(f"load: {CLIENTS} clients until {most} replicas are ready, then quiet", markup=False)
    tally, stop, path = Tally(), asyncio.Event(), _Path(cluster, ref)
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(timeout=60.0, trust_env=False, limits=limits) as client:
        clients = [asyncio.create_task(_client(client, url, model, tally, stop)) for _ in range(CLIENTS)]
        rose = await path.until(lambda replicas: replicas >= most, LOAD_SECONDS)
        await asyncio.sleep(FULL_SECONDS if rose else 0.0)
        stop.set()
        await asyncio.gather(*clients)
    console.print(f"  {path.seconds:5.1f} s  load ends", markup=False)
    fell = await path.until(lambda replicas: replicas <= least, QUIET_SECONDS)
    console.print(
        f"replicas {' → '.join(map(str, path.counts))}; {tally.answered} answered,"
        f" {tally.busy} told to come back later (429), {len(tally.failures)} failed",
        markup=False,
        soft_wrap=True,
    )
    if tally.failures:
        raise TransientError("RequestsFailed", f"{len(tally.failures)} requests failed, the first: {tally.failures[0]}")
    if not rose or not fell:
        wanted = f"up to {most} within {LOAD_SECONDS:g} s" if not rose else f"back to {least} in {QUIET_SECONDS:g} s"
        raise TransientError("NotScaled", f"the replicas of {model} did not go {wanted}: {path.why}")


@dataclass(slots=True)
class _Path:
    """The ready replicas as they changed; each change is printed."""

    cluster: Cluster
    ref: Ref
    counts: list[int] = field(default_factory=list)
    why: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    async def until(self, reached: Callable[[int], bool], seconds: float) -> bool:
        """Whether the count came there in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = (await self.cluster.get(self.ref)).get("status") or {}
            ready = int((status.get("active") or {}).get("replicas", 0))
            self.why = str((status.get("scaling") or {}).get("reason", ""))
            if self.counts[-1:] != [ready]:
                told = self.why if self.counts else ""
                self.counts.append(ready)
                noun = "replica" if ready == 1 else "replicas"
                console.print(f"  {self.seconds:5.1f} s  {ready} {noun} ready  {told}", markup=False, soft_wrap=True)
            if reached(ready):
                return True
            await asyncio.sleep(_LOOK_SECONDS)
        return False


async def _client(client: httpx.AsyncClient, url: str, model: str, tally: Tally, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            response = await client.post(f"{url}/v1/embeddings", json={"model": model, "input": _TEXTS})
        except httpx.HTTPError as error:
            tally.failures.append(f"{type(error).__name__}: {error}")
            continue
        if response.status_code == 200:
            tally.answered += 1
        elif response.status_code == 429:
            tally.busy += 1
            await asyncio.sleep(float(response.headers.get("retry-after", "1")))
        else:
            tally.failures.append(f"{response.status_code}: {response.text[:200]}")
