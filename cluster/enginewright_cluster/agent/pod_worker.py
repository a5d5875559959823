"""The life of one pod: prepare, init containers in order, containers with their restarts, end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from enginewright_api.errors import DeterministicError, EnginewrightError

from ..objects.labels import matches
from ..port import POD, SERVICE, InvalidError, NotFoundError, Object, Ref
from .container import Container, Setting
from .host import Host
from .names import LOCAL_PORTS
from .pod_status import ContainerRecord, pod_status, remembered
from .pods import uid_of
from .ports import named_ports, port_map
from .sources import text_sources
from .volumes import VolumeMissingError

_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS, _BACKOFF_RESET_SECONDS = 0.5, 300.0, 600.0
_PREPARE_SECONDS, _MAX_PREPARE_SECONDS = 0.25, 5.0
_REPORT_RETRY_SECONDS = 0.5
_CANNOT_RUN = 127
_ENFORCED = frozenset({"cpu", "memory", "ephemeral-storage"})

logger = logging.getLogger("enginewright.agent")


class PodWorker:
    """One task a pod. A pod that ran under an earlier agent starts over, its restarts counted."""

    def __init__(self, host: Host, pod: Object) -> None:
        self._host = host
        self._pod = pod
        metadata = pod["metadata"]
        self._ref = Ref(POD, metadata["name"], metadata["namespace"])
        self._folder = host.volumes.pod_folder(uid_of(pod))
        self._policy = pod["spec"].get("restartPolicy", "Always")
        self._dirty = asyncio.Event()
        self._init = self._containers("initContainers", "initContainerStatuses")
        self._main = self._containers("containers", "containerStatuses")
        self._initialized = False
        self._final = False
        self._leaving = False
        self._trouble: tuple[str, str] | None = None
        self._unschedulable = ""
        self._ports: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._reporter: asyncio.Task[None] | None = None

    async def announce(self) -> None:
        """Say that nothing runs yet: what an earlier agent wrote is no longer true."""
        await self._report()

    def start(self) -> None:
        """Begin."""
        name = self._ref.name
        self._reporter = asyncio.create_task(self._report_changes(), name=f"report-{name}")
        self._task = asyncio.create_task(self._run(), name=f"pod-{name}")

    async def stop(self, *, grace_seconds: float | None = None, hooks: bool = True) -> None:
        """End every process in order: hook, SIGTERM, SIGKILL. The grace time is the pod's own, at most the given."""
        self._leaving = True
        own = float(self._pod["spec"].get("terminationGracePeriodSeconds", 30))
        grace = own if grace_seconds is None else min(own, grace_seconds)
        await asyncio.gather(*(item.stop(grace, hooks=hooks) for item in [*self._init, *self._main]))
        for task in (self._task, self._reporter):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._host.ports.release(self._ports.values())

    async def stop_for_shutdown(self, grace_seconds: float) -> None:
        """The agent ends: what must not run twice has failed, the rest starts over with the next agent."""
        await self.stop(grace_seconds=grace_seconds, hooks=False)
        if not self._final and self._policy == "Never":
            self._fail("NodeShutdown", "the node agent was stopped while the pod ran")
        for container in self._main:
            container.record.ready = False
        await self._report()

    async def lose(self) -> None:
        """A pod that must not run twice was running when an earlier agent died."""
        self._fail("NodeLost", "the node agent died while the pod ran")
        await self._report()

    def _containers(self, field: str, statuses: str) -> list[Container]:
        before = self._pod.get("status", {}).get(statuses) or ()
        return [
            Container(self._host, self._pod, spec, remembered(spec, before, self._host.now()), self._dirty.set)
            for spec in self._pod["spec"].get(field) or ()
        ]

    async def _run(self) -> None:
        try:
            setting = await self._prepared()
            for container in self._init:
                if await self._keep_running(container, setting, init=True) != 0:
                    self._finish()
                    return
                container.record.ready = True
            self._initialized = True
            self._dirty.set()
            await asyncio.gather(*(self._keep_running(container, setting, init=False) for container in self._main))
            self._finish()
        except Exception as error:
            logger.exception("pod %s: the agent itself failed", self._ref.name)
            self._fail("AgentError", f"{type(error).__name__}: {error}")

    def _finish(self) -> None:
        if not self._leaving:
            self._final = True
            self._dirty.set()

    def _fail(self, reason: str, message: str) -> None:
        self._final = True
        self._trouble = (reason, message)
        self._dirty.set()

    async def _prepared(self) -> Setting:
        """Ports, volumes and environment sources; waits for what is not there yet."""
        wait = _PREPARE_SECONDS
        while True:
            try:
                self._check_devices()
                await self._allocate_ports()
                folders = await self._host.volumes.prepare(self._pod)
                source = await text_sources(self._host.volumes, self._pod)
                self._folder.mkdir(parents=True, exist_ok=True)
                grace = float(self._pod["spec"].get("terminationGracePeriodSeconds", 30))
                return Setting(self._folder, folders, self._ports, source, grace)
            except (EnginewrightError, OSError) as error:
                await self._not_prepared(error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _MAX_PREPARE_SECONDS)

    async def _not_prepared(self, error: EnginewrightError | OSError) -> None:
        reason, message = ("FailedMount", str(error))
        if isinstance(error, EnginewrightError):
            reason, message = error.reason, error.message
        self._unschedulable = message if reason == "FailedScheduling" else ""
        shown = "ContainerCreating" if isinstance(error, VolumeMissingError) else reason
        for container in [*self._init, *self._main]:
            container.record.waits(shown, message)
        self._dirty.set()
        await self._host.events.emit(self._pod, reason, message, warning=True)

    def _check_devices(self) -> None:
        for container in self._pod["spec"]["containers"]:
            for name in (container.get("resources") or {}).get("limits") or {}:
                if name not in _ENFORCED:
                    raise DeterministicError("FailedScheduling", f"this machine's node agent offers no {name}")

    async def _allocate_ports(self) -> None:
        if self._ports:
            return
        wanted = await self._fixed_ports()
        self._ports = self._host.ports.allocate(named_ports(self._pod), wanted)
        recorded = {"metadata": {"annotations": {LOCAL_PORTS: json.dumps(self._ports, sort_keys=True)}}}
        self._pod = await self._host.cluster.patch(self._ref, recorded, uid=uid_of(self._pod))

    async def _fixed_ports(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for service in await self._host.cluster.list(SERVICE, namespace=self._ref.namespace):
            selector = service["spec"].get("selector")
            if selector and matches(selector, self._pod):
                found.update(port_map((service["metadata"].get("annotations") or {}).get(LOCAL_PORTS)))
        return found

    async def _keep_running(self, container: Container, setting: Setting, *, init: bool) -> int:
        """Run, and run again as the restart policy says. The last exit code."""
        crashes, clock = 0, asyncio.get_running_loop().time
        while True:
            began = clock()
            code = await self._attempt(container, setting, init=init)
            again = code is None or (code != 0 if init or self._policy == "OnFailure" else True)
            if code is not None and (self._leaving or self._policy == "Never" or not again):
                return code
            crashes = 0 if clock() - began > _BACKOFF_RESET_SECONDS else crashes
            delay = min(_BACKOFF_SECONDS * 2**crashes, _MAX_BACKOFF_SECONDS)
            crashes += 1
            if code is not None:
                message = f"back-off {delay:g} s restarting failed container {container.record.name}"
                container.record.waits("CrashLoopBackOff", message)
                container.record.restarts += 1
                self._dirty.set()
                await self._host.events.emit(self._pod, "BackOff", message, warning=True)
            await asyncio.sleep(delay)
            setting = replace(setting, source=await text_sources(self._host.volumes, self._pod))

    async def _attempt(self, container: Container, setting: Setting, *, init: bool) -> int | None:
        """One run; None when it could not even begin and is to be tried again."""
        try:
            return await container.run(setting, probed=not init)
        except EnginewrightError as error:
            await self._host.events.emit(self._pod, "Failed", error.message, warning=True)
            if isinstance(error, InvalidError) or self._policy != "Never":
                container.record.waits(error.reason, error.message)
                self._dirty.set()
                return None
            container.record.ended(_CANNOT_RUN, "StartError", error.message, self._host.now())
            self._dirty.set()
            return _CANNOT_RUN

    async def _report_changes(self) -> None:
        while True:
            try:
                self._dirty.clear()
                await self._report()
            except NotFoundError:
                return  # deleted by force: the kubelet stops this worker
            except EnginewrightError as error:
                logger.warning("status of pod %s not written, trying again: %s", self._ref.name, error)
                await asyncio.sleep(_REPORT_RETRY_SECONDS)
                continue
            await self._dirty.wait()

    async def _report(self) -> None:
        status = pod_status(
            self._pod,
            _records(self._init),
            _records(self._main),
            initialized=self._initialized,
            final=self._final,
            trouble=self._trouble,
            unschedulable=self._unschedulable,
            now=self._host.now(),
        )
        self._pod = await self._host.cluster.patch_status(self._ref, status, uid=uid_of(self._pod))


def _records(containers: Sequence[Container]) -> list[ContainerRecord]:
    return [container.record for container in containers]
