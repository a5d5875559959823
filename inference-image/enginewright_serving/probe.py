"""Looks at the served model through the server's own HTTP door: one real, short inference."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from types import TracebackType

import aiohttp

from enginewright_serving.triton.generation_metrics import STEPS
from enginewright_serving.vitality import Observation

_TIMEOUT_SECONDS = 1.5
_ENGINE_GONE = re.compile(r"Stub process '[^']*' is not healthy")
_STEPS = re.compile(rf"^{STEPS}{{[^}}]*}} ([0-9.e+]+)$", re.MULTILINE)
_GENERATION_REQUEST = {"text_input": "ready", "sampling_param_max_tokens": 1}


class Probe:
    """Asks one model for an answer. Use as an async context manager."""

    def __init__(self, url: str, model: str, *, inputs: Sequence[str] = ("text",), progress_url: str = "") -> None:
        self._request = {
            "inputs": [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": ["ready"]} for name in inputs]
        }
        self._model = f"{url}/v2/models/{model}"
        self._progress_url = progress_url
        """Metrics of a model that generates text; empty for others."""
        self._progress = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Probe:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(self) -> Observation:
        """One observation. Only when the probe fails is the server asked for its success counter.

        A model that has made steps since the last look is alive; asking it too would take a place in its batch.
        """
        if self._progress_url and await self._has_stepped():
            return Observation(time.monotonic(), True, None)
        try:
            status, text = await self._ask()
        except (aiohttp.ClientError, TimeoutError) as error:
            return Observation(time.monotonic(), False, await self._successes(), f"{type(error).__name__}: {error}")
        if status == 200:
            return Observation(time.monotonic(), True, None)
        gone = _ENGINE_GONE.search(text) is not None
        successes = None if gone else await self._successes()
        return Observation(time.monotonic(), False, successes, f"HTTP {status}: {text[:200]}", gone)

    async def _ask(self) -> tuple[int, str]:
        # A decoupled model cannot be asked over /infer.
        path, body = ("generate", _GENERATION_REQUEST) if self._progress_url else ("infer", self._request)
        async with self._open().post(f"{self._model}/{path}", json=body) as response:
            return response.status, await response.text()

    async def _has_stepped(self) -> bool:
        try:
            async with self._open().get(self._progress_url, headers={"Connection": "close"}) as response:
                found = _STEPS.search(await response.text())
        except (aiohttp.ClientError, TimeoutError):
            return False
        before, self._progress = self._progress, float(found[1]) if found else 0.0
        return self._progress > before

    async def _successes(self) -> int | None:
        if self._progress_url:
            return None  # a decoupled model's requests count as successes when they are taken
        try:
            async with self._open().get(f"{self._model}/stats") as response:
                stats = await response.json(content_type=None)
            return sum(int(entry["inference_stats"]["success"]["count"]) for entry in stats["model_stats"])
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("Probe is used outside its context")
        return self._session
