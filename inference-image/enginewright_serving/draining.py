"""Waits until no request is in flight."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import aiohttp

_LOOK_EVERY_SECONDS = 0.05
_IDLE_LOOKS = 4
"""Looks in a row that must find nothing: between queue and execution a request is seen by neither count."""


async def wait_idle(in_flight: Callable[[], Awaitable[bool]], longest_seconds: float) -> bool:
    """True once `in_flight` said no several times running; False when the time is over first."""
    deadline = time.monotonic() + longest_seconds
    idle_looks = 0
    while idle_looks < _IDLE_LOOKS:
        if time.monotonic() >= deadline:
            return False
        idle_looks = 0 if await in_flight() else idle_looks + 1
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return True


async def waiting_requests(metrics_url: str, model: str) -> int | None:
    """Requests in the server's queue for a model; None when the server does not say."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as session,
            session.get(metrics_url, headers={"Connection": "close"}) as response,
        ):
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return None
    return parse_waiting(text, model)


def parse_waiting(metrics: str, model: str) -> int:
    """Sum of nv_inference_pending_request_count over the model's versions."""
    pattern = rf'^nv_inference_pending_request_count\{{[^}}]*model="{re.escape(model)}"[^}}]*\}} (\d+)'
    return sum(int(count) for count in re.findall(pattern, metrics, re.MULTILINE))
