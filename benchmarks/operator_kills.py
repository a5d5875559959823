"""The operator is killed again and again while many models live their lives on a real API server.

    python -m benchmarks.operator_kills [--models 200] [--kills 100] [--seed 0] [--json FILE]

Users create models, change their specs and change them back, scale them, delete them and create them again, each at a
moment drawn by the seed. The operator is a process of its own that gets SIGKILL at a random moment, as often as told,
and is started anew each time; the API server and the controllers of Jobs, Deployments and garbage are Kubernetes' own
(tests/kube); builders and servers are played through the statuses of their pods.

At the end, with a last operator left alone: every model is where its spec says, no build was asked for twice, and
nothing lives on whose owner is gone. The exit code is 1 when any of that does not hold, and each breach is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from benchmarks.lifecycles import Jobs, Users, breaches, name_of
from enginewright_api.crd import definitions
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.manifest import Evidence
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import (
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    OPTIMIZED_MODEL,
    POD,
)
from enginewright_operator.core.settings import OperatorSettings
from enginewright_operator.core.snapshot import Published
from enginewright_operator.shell.operator import Operator
from tests.kube.harness import private_cluster
from tests.scenarios.evidence import artifact, evidence, success
from tests.scenarios.kubelet import Attempt, Kubelet
from tests.scenarios.models import accelerator_class, settings

NAMESPACES = 8
STEP_SECONDS = 0.3
LONGEST_LIFE_SECONDS = 2.0
"""Of an operator process, from when it began to work."""
LAST_SECONDS = 300.0
"""The last operator has so long to end everything."""
QUIET_SECONDS = 8.0


class FolderStore:
    """What builders published, in a folder, so that every operator process sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, key: str, requests: Sequence[EvidenceRequest]) -> Published | None:
        """As `StoreLookup`."""
        found = [Evidence.model_validate_json(path.read_bytes()) for path in sorted(self._folder.glob(f"{key}.*.json"))]
        return Published(artifact(key), tuple(found)) if found else None

    def publish(self, attempt: Attempt) -> BuildOutcome:
        """A builder that succeeds."""
        found = evidence(attempt.request_digest)
        path = self._folder / f"{attempt.key}.{attempt.request_digest}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(found.model_dump_json(by_alias=True))
        partial.replace(path)
        return success(attempt.key, found)


def operator_settings() -> OperatorSettings:
    """Short pauses: here the clock is real."""
    given = settings(drain_seconds=1.0, gateways=())
    return replace(given, builds=replace(given.builds, retry_seconds=1, retry_most_seconds=5))


def _operator_process(kubeconfig: Path, folder: Path, begun: Path) -> None:
    async def run() -> None:
        cluster = await KubernetesCluster.from_kubeconfig(kubeconfig)
        operator = Operator(cluster, FolderStore(folder), operator_settings())
        asyncio.get_running_loop().call_soon(begun.touch)
        await operator.run()

    asyncio.run(run())


async def _until_quiet(cluster: KubernetesCluster, users: Users, jobs: Jobs) -> float:
    """Seconds until nothing is wrong any more and nothing changes, at most LAST_SECONDS."""
    begun, since, before = time.monotonic(), time.monotonic(), ""
    while time.monotonic() - begun < LAST_SECONDS:
        kinds = (OPTIMIZED_MODEL, ENGINE_BUILD, JOB, DEPLOYMENT, POD)
        listed = [await cluster.list(kind) for kind in kinds]
        now = str([(name_of(item), item["metadata"]["resourceVersion"]) for items in listed for item in items])
        if now != before:
            since, before = time.monotonic(), now
        elif time.monotonic() - since > QUIET_SECONDS and not await breaches(cluster, users, jobs):
            return since - begun
        await asyncio.sleep(1.0)
    return time.monotonic() - begun


async def measured(kubeconfig: Path, folder: Path, given: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """What does not hold, and the figures of the run."""
    cluster = await KubernetesCluster.from_kubeconfig(kubeconfig)
    dice = random.Random(given.seed + 1)  # noqa: S311
    run = secrets.token_hex(3)
    namespaces = [f"kills-{run}-{number}" for number in range(NAMESPACES)]
    await cluster.apply(accelerator_class())
    for name in namespaces:
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    models = [(namespaces[number % NAMESPACES], f"model-{number:03}") for number in range(given.models)]
    store, jobs = FolderStore(folder), Jobs()
    # A process starts in about two seconds and lives for one on average.
    users = Users(cluster, models, given.seed, within=given.kills * (2.0 + LONGEST_LIFE_SECONDS / 2))
    kubelets = [Kubelet(cluster, store.publish, namespace=name) for name in namespaces]

    async def surroundings() -> None:
        while True:
            await asyncio.gather(*(kubelet.step() for kubelet in kubelets))
            await asyncio.sleep(STEP_SECONDS)

    async def follow() -> None:
        async for event in cluster.watch(JOB):
            jobs.told(event.object)

    started = time.monotonic()
    around = [asyncio.create_task(surroundings()), asyncio.create_task(follow())]
    acting = asyncio.create_task(users.run())
    try:
        for number in range(given.kills):
            await _live(kubeconfig, folder, dice.uniform(0.0, LONGEST_LIFE_SECONDS))
            if not number % 10:
                print(
                    f"{number + 1} of {given.kills} killed, {sum(users.done.values())} acts",
                    file=sys.stderr,
                    flush=True,
                )
            ended = [task for task in (*around, acting) if task.done() and task.exception()]
            if ended:
                ended[0].result()
        await acting
        last, _ = _start(kubeconfig, folder)
        try:
            settled = await _until_quiet(cluster, users, jobs)
            wrong = await breaches(cluster, users, jobs)
        finally:
            last.kill()
            last.join()
    finally:
        for task in (*around, acting):
            task.cancel()
        await asyncio.gather(*around, acting, return_exceptions=True)
        await cluster.close()
    return wrong, {
        "models": given.models, "kills": given.kills, "seed": given.seed,
        "acts": dict(users.done), "alive": sum(wanted is not None for wanted in users.wanted.values()),
        "jobs": len(jobs.asked), "seconds": round(time.monotonic() - started, 1), "settled_seconds": round(settled, 1),
        "breaches": wrong,
    }  # fmt: skip


def _start(kubeconfig: Path, folder: Path) -> tuple[SpawnProcess, Path]:
    """A process, and the file that it makes when it begins to work."""
    begun = folder / f"begun-{time.monotonic_ns()}"
    process = multiprocessing.get_context("spawn").Process(
        target=_operator_process, args=(kubeconfig, folder, begun), daemon=True
    )
    process.start()
    return process, begun


def _until_begun(process: SpawnProcess, begun: Path) -> None:
    while process.exitcode is None and not begun.exists():
        time.sleep(0.02)


async def _live(kubeconfig: Path, folder: Path, seconds: float) -> None:
    """One operator process, from its start to SIGKILL so many seconds after it began to work."""
    process, begun = _start(kubeconfig, folder)
    try:
        await asyncio.to_thread(_until_begun, process, begun)
        await asyncio.sleep(seconds)
        if process.exitcode is not None:
            raise SystemExit(f"the operator ended by itself with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def main() -> int:
    """Print the figures and every breach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="Where to write the figures.")
    given = parser.parse_args()
    with private_cluster("control", "kwok") as kube, tempfile.TemporaryDirectory() as folder:
        kube.install_crds(definitions())
        wrong, found = asyncio.run(measured(kube.kubeconfig, Path(folder), given))
    for breach in wrong:
        print(breach)
    print(json.dumps({name: value for name, value in found.items() if name != "breaches"}))
    if given.json is not None:
        given.json.write_text(json.dumps({"cpus": os.cpu_count(), **found}, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
