"""`demo --load`: bounded load on the local gateway, and the replicas that follow it up and down."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import httpx

from enginewright_cli.output import console
from enginewright_cluster.port import OPTIMIZED_MODEL, Cluster, Ref

CLIENTS = 24
LOAD_SECONDS = 45.0
QUIET_SECONDS = 120.0
_TEXT = " ".join(["A sentence that keeps a small encoder busy for a moment, so that requests queue up."] * 4)


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    answered: int = 0
    busy: int = 0
    failures: list[str] = field(default_factory=list)


async def watch_scaling(cluster: Cluster, url: str, model: str, namespace: str) -> None:
    """Load for a while, then quiet; prints every change of the replica count and how many requests failed."""
    console.print(f"load: {CLIENTS} clients for {LOAD_SECONDS:g} s, then quiet", markup=False)
    tally, started = Tally(), time.monotonic()
    path: list[int] = []
    try:
        async with httpx.AsyncClient(
            timeout=60.0, trust_env=False, limits=httpx.Limits(max_connections=CLIENTS)
        ) as client:
            clients = [
                asyncio.create_task(_client(client, url, model, tally, started + LOAD_SECONDS)) for _ in range(CLIENTS)
            ]
            while time.monotonic() < started + LOAD_SECONDS + QUIET_SECONDS:
                item = await cluster.get(Ref(OPTIMIZED_MODEL, model, namespace))
                ready = int(((item.get("status") or {}).get("active") or {}).get("replicas", 0))
                if not path or path[-1] != ready:
                    path.append(ready)
                    why = ((item.get("status") or {}).get("scaling") or {}).get("reason", "")
                    console.print(
                        f"  {time.monotonic() - started:5.1f} s  {ready} replicas ready  {why}",
                        markup=False,
                        soft_wrap=True,
                    )
                if time.monotonic() > started + LOAD_SECONDS and ready <= 1:
                    break
                await asyncio.sleep(0.2)
            await asyncio.gather(*clients)
    finally:
        await cluster.close()
    console.print(
        f"replicas {' → '.join(map(str, path))}; {tally.answered} answered, {tally.busy} told to come back later (429),"
        f" {len(tally.failures)} failed{': ' + tally.failures[0] if tally.failures else ''}",
        markup=False,
        soft_wrap=True,
    )


async def _client(client: httpx.AsyncClient, url: str, model: str, tally: Tally, end: float) -> None:
    while time.monotonic() < end:
        try:
            response = await client.post(f"{url}/v1/embeddings", json={"model": model, "input": _TEXT})
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
