"""Pods of this node: a worker for each that should run, an orderly end for each that should not."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from enginewright_api.errors import EnginewrightError

from ..port import ENDPOINT_SLICE, POD, NotFoundError, Object, Ref
from .host import Host
from .names import COMPONENT, FINALIZER, MANAGED_BY, NODE_NAME
from .pod_worker import PodWorker
from .pods import is_finished, is_leaving, phase, uid_of

_WITHDRAWAL_SECONDS = 0.15
"""Time for a gateway to hear that an endpoint is gone, before its process is told to stop."""
_LOG_FOLDERS_KEPT = 100

logger = logging.getLogger("enginewright.agent")


class Kubelet:
    """Level-triggered: `sync` brings the workers in line with the pods."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._workers: dict[str, PodWorker] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._adopting = True

    async def sync(self) -> float | None:
        """Start and end workers. Ends run beside, since they take as long as the grace time."""
        pods = [
            pod for pod in await self._host.cluster.list(POD) if pod["spec"].get("nodeName", NODE_NAME) == NODE_NAME
        ]
        present = {uid_of(pod): pod for pod in pods}
        for uid, pod in present.items():
            if uid in self._ending:
                continue
            if is_leaving(pod):
                self._end(uid, pod)
            elif uid not in self._workers and not is_finished(pod):
                await self._begin(uid, pod)
        for uid in self._workers.keys() - present.keys() - self._ending.keys():
            self._end(uid, None)
        self._adopting = False
        return None

    async def shut_down(self, grace_seconds: float) -> None:
        """Every process ends, all at the same time."""
        ends = [worker.stop_for_shutdown(grace_seconds) for worker in self._workers.values()]
        for result in await asyncio.gather(*ends, *self._ending.values(), return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, NotFoundError):
                logger.warning("while stopping: %s", result)

    async def forget_old(self) -> None:
        """Remove folders of pods that are gone, and the oldest logs."""
        present = {uid_of(pod) for pod in await self._host.cluster.list(POD)}
        await asyncio.to_thread(_tidy, self._host.state_dir, present)

    async def _begin(self, uid: str, pod: Object) -> None:
        worker = PodWorker(self._host, pod)
        if self._adopting and phase(pod) == "Running" and pod["spec"].get("restartPolicy") == "Never":
            await worker.lose()
            return
        self._workers[uid] = worker
        await worker.announce()
        worker.start()
        await self._host.events.emit(pod, "Started", f"pod {pod['metadata']['name']} is started on this machine")

    def _end(self, uid: str, pod: Object | None) -> None:
        task = asyncio.create_task(self._ended(uid, pod), name=f"end-{uid}")
        self._ending[uid] = task
        task.add_done_callback(lambda _: self._ending.pop(uid, None))

    async def _ended(self, uid: str, pod: Object | None) -> None:
        worker = self._workers.get(uid)
        try:
            if worker is not None:
                if pod is not None and await self._withdraw(pod):
                    await asyncio.sleep(_WITHDRAWAL_SECONDS)
                await worker.stop()
                del self._workers[uid]
            await asyncio.to_thread(shutil.rmtree, self._host.volumes.pod_folder(uid), ignore_errors=True)
            if pod is not None:
                await self._release(pod)
        except EnginewrightError as error:
            logger.warning("pod %s: end not complete, trying again: %s", uid, error)

    async def _withdraw(self, pod: Object) -> bool:
        """Take the pod's endpoints away before its process. Whether there were any."""
        namespace = pod["metadata"]["namespace"]
        slices = await self._host.cluster.list(ENDPOINT_SLICE, namespace=namespace, labels={MANAGED_BY: COMPONENT})
        found = [item for item in slices if _targets(item, uid_of(pod))]
        for item in found:
            await self._host.cluster.delete(Ref(ENDPOINT_SLICE, item["metadata"]["name"], namespace))
        return bool(found)

    async def _release(self, pod: Object) -> None:
        metadata = pod["metadata"]
        left = [name for name in metadata.get("finalizers") or () if name != FINALIZER]
        ref = Ref(POD, metadata["name"], metadata["namespace"])
        try:
            await self._host.cluster.patch(ref, {"metadata": {"finalizers": left or None}}, uid=uid_of(pod))
        except NotFoundError:
            return


def _targets(item: Object, uid: str) -> bool:
    return any(endpoint.get("targetRef", {}).get("uid") == uid for endpoint in item.get("endpoints") or ())


def _tidy(state_dir: Path, present: set[str]) -> None:
    for folder in (state_dir / "pods").glob("*"):
        if folder.name not in present:
            shutil.rmtree(folder, ignore_errors=True)
    logs = sorted((state_dir / "logs").glob("*/*"), key=_modified, reverse=True)
    for folder in logs[_LOG_FOLDERS_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


def _modified(folder: Path) -> float:
    return folder.stat().st_mtime
