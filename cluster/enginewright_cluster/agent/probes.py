"""Probes of containers: HTTP, TCP, command.

As in a kubelet, with one difference: a container that is not yet started or ready is asked every 200 ms during its
first minute, whatever `periodSeconds` says, because the time from start to first answer is what people wait for.
Thresholds keep their meaning in time: a startup probe gives up after failureThreshold × periodSeconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from ..port import InvalidError
from .names import NODE_ADDRESS

_EAGER_SECONDS = 0.2
_EAGER_FOR_SECONDS = 60.0

Command = Callable[[list[str]], Awaitable[int]]
"""Runs a command in the container's environment; gives its exit code."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe with its defaults filled in."""

    spec: Mapping[str, Any]
    ports: Mapping[str, int]
    declared: Mapping[int, int]
    """Real port by declared number, for probes that name a number."""

    def number(self, name: str, default: float) -> float:
        """A numeric field."""
        return float(self.spec.get(name, default))

    @property
    def period_seconds(self) -> float:
        """periodSeconds."""
        return self.number("periodSeconds", 10)

    @property
    def failure_threshold(self) -> int:
        """failureThreshold."""
        return int(self.number("failureThreshold", 3))

    def check_target(self) -> None:
        """InvalidError for a probe that cannot run here."""
        for action in ("httpGet", "tcpSocket"):
            if action in self.spec:
                self.port(self.spec[action]["port"])
        if not {"httpGet", "tcpSocket", "exec"} & self.spec.keys():
            raise InvalidError(
                "CreateContainerConfigError", "probe: only httpGet, tcpSocket and exec run on a local node"
            )

    def port(self, wanted: int | str) -> int:
        """The real port."""
        if isinstance(wanted, int):
            return self.declared.get(wanted, wanted)
        if wanted not in self.ports:
            raise InvalidError("CreateContainerConfigError", f"probe: there is no port named {wanted!r}")
        return self.ports[wanted]


class Prober:
    """Asks. One HTTP session for all probes; connections are not kept, as in a kubelet."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def check(self, probe: Probe, command: Command) -> str | None:
        """None for success, else what went wrong in a few words."""
        timeout = probe.number("timeoutSeconds", 1)
        try:
            async with asyncio.timeout(timeout):
                return await self._asked(probe, command)
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except (OSError, aiohttp.ClientError) as error:
            return str(error) or type(error).__name__

    async def close(self) -> None:
        """Release the session."""
        if self._session is not None:
            await self._session.close()

    async def _asked(self, probe: Probe, command: Command) -> str | None:
        spec = probe.spec
        if "httpGet" in spec:
            return await self._http(spec["httpGet"], probe)
        if "tcpSocket" in spec:
            _, writer = await asyncio.open_connection(NODE_ADDRESS, probe.port(spec["tcpSocket"]["port"]))
            writer.close()
            return None
        code = await command([str(word) for word in spec["exec"]["command"]])
        return None if code == 0 else f"command ended with exit code {code}"

    async def _http(self, spec: Mapping[str, Any], probe: Probe) -> str | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        scheme = str(spec.get("scheme", "HTTP")).lower()
        path = str(spec.get("path", "/"))
        url = f"{scheme}://{NODE_ADDRESS}:{probe.port(spec['port'])}/{path.lstrip('/')}"
        headers = {item["name"]: item["value"] for item in spec.get("httpHeaders") or ()}
        async with self._session.get(url, headers=headers, allow_redirects=False, ssl=False) as answer:
            return None if 200 <= answer.status < 400 else f"{url} answered {answer.status}"


async def until_started(prober: Prober, probe: Probe, command: Command) -> str | None:
    """Returns None once the startup probe succeeds; what it last said once its time is over."""
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(probe.number("initialDelaySeconds", 0))
    began = clock()
    while True:
        said = await prober.check(probe, command)
        if said is None:
            return None
        if clock() - began >= probe.failure_threshold * probe.period_seconds:
            return said
        await asyncio.sleep(min(_EAGER_SECONDS, probe.period_seconds))


async def watch_readiness(
    prober: Prober, probe: Probe, command: Command, tell: Callable[[bool, str], Awaitable[None]]
) -> None:
    """Tells every change of readiness (and what the probe said), beginning with not ready, which is not told."""
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(probe.number("initialDelaySeconds", 0))
    needed = int(probe.number("successThreshold", 1))
    ready, successes, failures, began = False, 0, 0, clock()
    while True:
        said = await prober.check(probe, command)
        successes, failures = (successes + 1, 0) if said is None else (0, failures + 1)
        if not ready and successes >= needed:
            ready = True
            await tell(True, "")
        elif ready and failures >= probe.failure_threshold:
            ready, began = False, clock()
            await tell(False, said or "")
        eager = not ready and clock() - began < _EAGER_FOR_SECONDS
        await asyncio.sleep(min(_EAGER_SECONDS, probe.period_seconds) if eager else probe.period_seconds)


async def until_dead(prober: Prober, probe: Probe, command: Command) -> str:
    """Returns what the liveness probe says once it has failed often enough in a row."""
    await asyncio.sleep(probe.number("initialDelaySeconds", 0))
    failures = 0
    while True:
        said = await prober.check(probe, command)
        failures = 0 if said is None else failures + 1
        if said is not None and failures >= probe.failure_threshold:
            return said
        await asyncio.sleep(probe.period_seconds)
