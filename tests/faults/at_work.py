"""An operator that runs as in production, woken by its watches, beside pods that behave as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from enginewright_api.errors import TransientError
from enginewright_cluster.port import Cluster
from tests.scenarios.models import accelerator_class
from tests.scenarios.test_rolling_out import selected
from tests.scenarios.world import Shifted, World

Opened = Callable[[Path], Awaitable[Cluster]]

SECONDS = 40.0
"""Longer than anything here takes on a busy machine."""


async def world_on(cluster: Cluster, namespace: str) -> World:
    """The world on a real API server, with the class `cpu`."""
    await cluster.apply(accelerator_class(), field_manager="user")
    return World(cluster, clock=Shifted(), real=True, namespace=namespace)


@contextlib.asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    """Work that goes on for the time of a test; what ends without having been cancelled is an error."""
    tasks = tuple(asyncio.create_task(work) for work in works)
    try:
        yield tasks
        for task in tasks:
            assert task.cancelled() or not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pods_of(world: World) -> None:
    """Plays the kubelet, through whatever outages there are."""
    while True:
        with contextlib.suppress(TransientError):
            await world.step()
        await asyncio.sleep(0.2)


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = SECONDS) -> None:
    """Wait for something that watches nothing itself; an outage is no answer."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(TransientError):
                if await holds():
                    return
            await asyncio.sleep(0.1)


async def ready(world: World, *, but_not: str = "", name: str = "search", seconds: float = SECONDS) -> str:
    """Wait until the model is Ready on an engine other than `but_not`; the label of that engine."""

    async def holds() -> bool:
        model = await world.model(name)
        found = {item["type"]: item for item in model.get("status", {}).get("conditions", ())}
        current = model["status"].get("observedGeneration") == model["metadata"]["generation"]
        serves = current and found.get("RolledOut", {}).get("status") == "True"
        serves = serves or (current and await _switched(world, name, but_not))
        return bool(serves and await selected(world, name) != but_not)

    await until(holds, seconds=seconds)
    return await selected(world, name)


async def _switched(world: World, name: str, but_not: str) -> bool:
    """Requests go to the new engine; the former one may still be draining."""
    active = (await world.model(name))["status"].get("active") or {}
    label = str(active.get("artifactDigest", "")).removeprefix("sha256:")[:32]
    return bool(but_not) and label not in ("", but_not)
