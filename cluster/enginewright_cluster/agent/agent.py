"""The agent: its loops together, a clean start after whatever happened before, an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from enginewright_api.errors import DeterministicError, EnginewrightError

from ..local import LocalCluster
from ..port import DEPLOYMENT, JOB, POD, SERVICE
from .controllers import Controllers
from .events import Events
from .host import Host
from .kubelet import Kubelet
from .leftovers import end_marked
from .loops import Changes, keep
from .node import report_node
from .ports import PortAllocator
from .probes import Prober
from .processes import NODE_MARK, RUN_MARK
from .volumes import Volumes

STOP_SECONDS = 10.0
_TIDY_SECONDS = 600.0

logger = logging.getLogger("enginewright.agent")


class Agent:
    """Runs what a LocalCluster holds. One agent a state folder: a second one is refused."""

    def __init__(
        self,
        cluster: LocalCluster,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """`stop_seconds` bounds every pod's grace time when the agent itself stops."""
        self._cluster = cluster
        self._now = now
        self._stop_seconds = stop_seconds
        self._run_id = uuid.uuid4().hex

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Until cancelled; then every process is ended before this returns. `ready` is called once work begins.

        Raises DeterministicError when another agent runs on the same state folder.
        """
        state_dir = self._cluster.state_dir.absolute()
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _only_one(state_dir), _reaper(self._run_id):
            killed = await asyncio.to_thread(end_marked, NODE_MARK, str(state_dir))
            if killed:
                logger.warning("ended %d process(es) that an earlier agent left behind", killed)
            events = Events(self._cluster, self._now)
            prober = Prober()
            host = Host(
                cluster=self._cluster,
                state_dir=state_dir,
                run_id=self._run_id,
                ports=PortAllocator(),
                prober=prober,
                events=events,
                volumes=Volumes(self._cluster, state_dir),
                now=self._now,
            )
            kubelet, controllers = Kubelet(host), Controllers(self._cluster, events, self._now)
            await controllers.withdraw_all()
            await kubelet.forget_old()
            try:
                await kubelet.sync()  # first of all: pods that an earlier agent left as ready are not
                await report_node(self._cluster, self._now, ready=True)
                await self._work(kubelet, controllers, events, ready)
            finally:
                await self._stop(kubelet, controllers)
                await prober.close()

    async def _work(
        self, kubelet: Kubelet, controllers: Controllers, events: Events, ready: Callable[[], None] | None
    ) -> None:
        changes = Changes(self._cluster, [DEPLOYMENT, JOB, POD, SERVICE])
        loops = [
            ("pods", kubelet.sync, changes.listen(POD)),
            ("deployments", controllers.sync_deployments, changes.listen(DEPLOYMENT, POD, SERVICE)),
            ("jobs", controllers.sync_jobs, changes.listen(JOB, POD)),
            ("endpoints", controllers.sync_endpoints, changes.listen(SERVICE, POD)),
        ]
        async with asyncio.TaskGroup() as group:
            for name, sync, changed in loops:
                group.create_task(keep(name, sync, changed), name=name)
            group.create_task(changes.follow(), name="changes")
            group.create_task(self._tidy(kubelet, events), name="tidy")
            if ready is not None:
                ready()

    async def _stop(self, kubelet: Kubelet, controllers: Controllers) -> None:
        """Shielded from a second cancellation by the caller's patience: it is bounded by `stop_seconds`."""
        for step in (
            controllers.withdraw_all(),
            kubelet.shut_down(self._stop_seconds),
            report_node(self._cluster, self._now, ready=False),
        ):
            try:
                await step
            except EnginewrightError as error:
                logger.warning("while stopping: %s", error)

    async def _tidy(self, kubelet: Kubelet, events: Events) -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            try:
                await events.forget_old()
                await kubelet.forget_old()
            except EnginewrightError as error:
                logger.warning("tidying: %s", error)


@contextlib.contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    path = state_dir / "agent.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DeterministicError(
                "AlreadyRunning",
                f"{state_dir}: a node agent (process {file.read().strip() or 'unknown'}) already runs on this folder:"
                " use that one, or stop it first",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def _reaper(run_id: str) -> Iterator[None]:
    """A process that ends what is left when this one is killed; its end of input is the signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "enginewright_cluster.agent.reaper", RUN_MARK, run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=10)
