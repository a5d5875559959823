"""One container of a pod: start its process, watch it, say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..log_files import log_path
from ..port import Object
from .environment import Mounts, Source, arguments, check_supported, environment
from .host import Host
from .memory import tree_bytes
from .pod_status import ContainerRecord
from .probes import Probe, until_dead, until_started, watch_readiness
from .processes import NODE_MARK, RUN_MARK, LogFile, Process, resolve, start
from .quantities import quantity
from .volumes import mounts_of

MESSAGE_BYTES = 4096
MESSAGE_VARIABLE = "TERMINATION_MESSAGE_PATH"
_MEMORY_POLL_SECONDS = 1.0
_PROBES = ("startup", "readiness", "liveness")
_KILLED = 128 + signal.SIGKILL


logger = logging.getLogger("enginewright.agent")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a pod's containers run in, once it is prepared."""

    folder: Path
    folders: Mapping[str, Path]
    ports: Mapping[str, int]
    source: Source
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class _Duties:
    """What to look after while a process runs."""

    memory_limit_bytes: float | None
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None


class Container:
    """Runs again and again, if it is asked to; `record` tells how it stands."""

    def __init__(
        self, host: Host, pod: Object, spec: Mapping[str, Any], record: ContainerRecord, changed: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.record = record
        self._host = host
        self._pod = pod
        self._changed = changed
        self._process: Process | None = None
        self._variables: dict[str, str] = {}
        self._killed_for = ""

    async def run(self, setting: Setting, *, probed: bool) -> int:
        """From start to end. Raises InvalidError (what cannot be resolved), DeterministicError (cannot be started)."""
        check_supported(self.spec, init=not probed)
        mounts = mounts_of(self.spec, setting.folders)
        message = setting.folder / f"{self.record.name}.message"
        self._variables = self._environment(setting, mounts, message)
        command = arguments(self.spec, self._variables, mounts)
        duties = _Duties(
            self._memory_limit_bytes(),
            *(self._probe_of(f"{name}Probe", setting) if probed else None for name in _PROBES),
        )
        log = LogFile(self._log_path())
        try:
            message.unlink(missing_ok=True)
            self._process = process = await start(
                command, variables=self._variables, folder=self._folder(setting, mounts), log=log
            )
            self.record.runs(self._host.now(), process.pid)
            self._changed()
            code = await self._attended(process, duties, setting.grace_seconds)
            self._end(code, message, log)
            return self.record.terminated["exitCode"] if self.record.terminated else code
        finally:
            self._process = None
            log.close()

    async def stop(self, grace_seconds: float, *, hooks: bool) -> None:
        """preStop, SIGTERM, SIGKILL; all within the grace time."""
        process = self._process
        if process is None:
            return
        clock = asyncio.get_running_loop().time
        deadline = clock() + grace_seconds
        hook = ((self.spec.get("lifecycle") or {}).get("preStop")) if hooks else None
        if hook:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._hook(hook)
        await process.terminate(max(0.0, deadline - clock()))

    async def execute(self, command: list[str]) -> int:
        """Run a command in the container's environment; its exit code."""
        inner = await asyncio.create_subprocess_exec(
            resolve(command[0], self._variables.get("PATH")),
            *command[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=self._variables,
            start_new_session=True,
        )
        try:
            return await inner.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(inner.pid, signal.SIGKILL)

    def _environment(self, setting: Setting, mounts: Mounts, message: Path) -> dict[str, str]:
        own = environment(self.spec, self._pod, ports=setting.ports, mounts=mounts, source=setting.source)
        scratch = mounts.folders.get("/tmp")  # noqa: S108 - as the container names it
        return {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            **({"TMPDIR": scratch} if scratch else {}),
            **own,
            MESSAGE_VARIABLE: str(message),
            NODE_MARK: str(self._host.state_dir),
            RUN_MARK: self._host.run_id,
        }

    def _folder(self, setting: Setting, mounts: Mounts) -> Path:
        wanted = self.spec.get("workingDir")
        return Path(mounts.rewritten(str(wanted))) if wanted else setting.folder

    def _log_path(self) -> Path:
        metadata = self._pod["metadata"]
        return log_path(self._host.state_dir, metadata["namespace"], metadata["name"], self.record.name)

    async def _attended(self, process: Process, duties: _Duties, grace_seconds: float) -> int:
        self._killed_for = ""
        tasks = [asyncio.create_task(self._probe(process, duties, grace_seconds), name=f"probes-{process.pid}")]
        if duties.memory_limit_bytes is not None:
            limit = self._limit_memory(process, duties.memory_limit_bytes)
            tasks.append(asyncio.create_task(limit, name=f"memory-{process.pid}"))
        try:
            return await process.wait()
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    logger.error("container %s was no longer watched", self.record.name, exc_info=result)

    def _end(self, code: int, message: Path, log: LogFile) -> None:
        out_of_memory = self._killed_for == "OOMKilled"
        code = _KILLED if out_of_memory else code
        reason = "OOMKilled" if out_of_memory else "Completed" if code == 0 else "Error"
        text = message.read_bytes()[:MESSAGE_BYTES].decode(errors="replace") if message.exists() else ""
        if not text and code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            text = log.tail()
        self.record.ended(code, reason, text, self._host.now())
        self._changed()

    def _memory_limit_bytes(self) -> float | None:
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        return None if limit is None else quantity(limit, f"container {self.record.name}: resources.limits.memory")

    async def _limit_memory(self, process: Process, limit_bytes: float) -> None:
        while tree_bytes(process.pid) <= limit_bytes:  # noqa: ASYNC110 - memory sends no events
            await asyncio.sleep(_MEMORY_POLL_SECONDS)
        self._killed_for = "OOMKilled"
        process.signal(signal.SIGKILL)

    async def _probe(self, process: Process, duties: _Duties, grace_seconds: float) -> None:
        prober = self._host.prober
        if duties.startup is not None:
            said = await until_started(prober, duties.startup, self.execute)
            if said is not None:
                await self._kill(process, f"startup probe failed: {said}", grace_seconds)
                return
        self.record.started = True
        await self._tell_ready(duties.readiness is None, "")
        async with asyncio.TaskGroup() as group:
            if duties.readiness is not None:
                group.create_task(watch_readiness(prober, duties.readiness, self.execute, self._tell_ready))
            if duties.liveness is not None:
                said = await until_dead(prober, duties.liveness, self.execute)
                await self._kill(process, f"liveness probe failed: {said}", grace_seconds)

    def _probe_of(self, name: str, setting: Setting) -> Probe | None:
        spec = self.spec.get(name)
        if spec is None:
            return None
        declared = {
            int(port["containerPort"]): setting.ports[port["name"]]
            for port in self.spec.get("ports") or ()
            if port.get("name") in setting.ports
        }
        probe = Probe(spec, setting.ports, declared)
        probe.check_target()
        return probe

    async def _tell_ready(self, ready: bool, said: str) -> None:
        self.record.ready = ready
        self._changed()
        if said:
            await self._host.events.emit(self._pod, "Unhealthy", f"readiness probe failed: {said}", warning=True)

    async def _kill(self, process: Process, said: str, grace_seconds: float) -> None:
        name = self.record.name
        await self._host.events.emit(self._pod, "Unhealthy", f"container {name}: {said}", warning=True)
        await self._host.events.emit(self._pod, "Killing", f"container {name}: {said}, it will be restarted")
        await process.terminate(grace_seconds)

    async def _hook(self, hook: Mapping[str, Any]) -> None:
        if "sleep" in hook:
            await asyncio.sleep(float(hook["sleep"]["seconds"]))
        elif "exec" in hook:
            await self.execute([str(word) for word in hook["exec"]["command"]])
