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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from enginewright_api.crd import definitions
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.manifest import Evidence
from enginewright_api.names import LABEL_EVIDENCE
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    OPTIMIZED_MODEL,
    POD,
    SERVICE,
    Cluster,
    EventType,
    Kind,
    Object,
    Ref,
)
from enginewright_operator.core.settings import OperatorSettings
from enginewright_operator.core.snapshot import Published
from enginewright_operator.shell.operator import Operator
from tests.kube.harness import private_cluster
from tests.scenarios.evidence import artifact, evidence, success
from tests.scenarios.kubelet import Attempt, Kubelet
from tests.scenarios.models import accelerator_class, model, settings

NAMESPACES = 8
STEP_SECONDS = 0.3
ACTIONS = 4
"""Things that happen to each model after its creation."""
LONGEST_LIFE_SECONDS = 2.0
"""Of an operator process, from when it began to work."""
LAST_SECONDS = 300.0
"""The last operator has so long to end everything."""
QUIET_SECONDS = 8.0
_REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")


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


@dataclass
class Jobs:
    """What the API server told of Jobs: when each was there, and for what."""

    begun: dict[str, float] = field(default_factory=dict)
    """Uid → when."""
    ended: dict[str, float] = field(default_factory=dict)
    asked: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Uid → uid of the EngineBuild and what it is to measure."""

    def told(self, type_: EventType, job: Object) -> None:
        """One event."""
        metadata, now = job["metadata"], time.monotonic()
        uid = metadata["uid"]
        owner = next(item["uid"] for item in metadata["ownerReferences"])
        self.begun.setdefault(uid, now)
        self.asked[uid] = owner, metadata["labels"][LABEL_EVIDENCE]
        if type_ is EventType.DELETED or job.get("status", {}).get("conditions"):
            self.ended.setdefault(uid, now)

    def repeated(self) -> list[str]:
        """Builds that were asked for more than once."""
        times = Counter(self.asked.values())
        return [
            f"EngineBuild {owner}: {count} Jobs for evidence {asked}"
            for (owner, asked), count in times.items()
            if count > 1
        ]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model's spec as its user left it."""

    batch: int
    """engine.limits.maxBatchSize: the recipe that is wanted."""
    replicas: int


class Users:
    """What people want, model by model; None when the model is deleted."""

    def __init__(self, cluster: Cluster, models: Sequence[tuple[str, str]], seed: int, within: float) -> None:
        """`within`: seconds over which what they do is spread."""
        self._cluster, self._within = cluster, within
        self._dice = random.Random(seed)  # noqa: S311 - order, not a secret
        self.wanted: dict[tuple[str, str], Wanted | None] = dict.fromkeys(models)
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Until everybody got what they wanted."""
        async with asyncio.TaskGroup() as group:
            for number, key in enumerate(self.wanted):
                moments = sorted(self._dice.uniform(0, self._within) for _ in range(ACTIONS + 1))
                acts = [self._dice.choice(("recipe", "back", "scale", "delete")) for _ in range(ACTIONS)]
                group.create_task(self._life(key, number, moments, acts))

    async def _life(self, key: tuple[str, str], number: int, moments: list[float], acts: list[str]) -> None:
        begun = time.monotonic()
        for moment, act in zip(moments, ["create", *acts], strict=True):
            await asyncio.sleep(max(0.0, begun + moment - time.monotonic()))
            await self._act(key, number, act)

    async def _act(self, key: tuple[str, str], number: int, act: str) -> None:
        before = self.wanted[key]
        if before is not None and act == "delete":
            await self._cluster.delete(Ref(OPTIMIZED_MODEL, key[1], key[0]))
            self.wanted[key] = None
        else:
            wanted = before or Wanted(8, 1)
            match act:
                case "recipe":
                    wanted = replace(wanted, batch=16)
                case "back":
                    wanted = replace(wanted, batch=8)
                case "scale":
                    wanted = replace(wanted, replicas=wanted.replicas % 3 + 1)
            limits = {"maxBatchSize": wanted.batch, "maxInputTokens": 32 + number}
            manifest = model(key[1], key[0], replicas=wanted.replicas, engine={"limits": limits})
            await self._cluster.apply(manifest, field_manager="user")
            self.wanted[key] = wanted
        self.done[act if before is not None or act == "create" else "create again"] += 1


async def breaches(cluster: Cluster, users: Users, jobs: Jobs) -> list[str]:
    """What does not hold at the end."""
    found = jobs.repeated()
    kinds = (OPTIMIZED_MODEL, ENGINE_BUILD, JOB, DEPLOYMENT, SERVICE, CONFIG_MAP, POD)
    items = {kind: await cluster.list(kind) for kind in kinds}
    alive = {item["metadata"]["uid"] for listed in items.values() for item in listed}
    alive |= {item["metadata"]["uid"] for item in await cluster.list(_REPLICA_SET)}
    for kind in kinds[1:]:
        for item in items[kind]:
            owners = [owner["uid"] for owner in item["metadata"].get("ownerReferences", [])]
            if owners and not alive.intersection(owners):
                found.append(f"{kind.kind} {_name(item)} lives on without its owner")
    models = {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in items[OPTIMIZED_MODEL]}
    builds = {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in items[ENGINE_BUILD]}
    for key, wanted in users.wanted.items():
        if (wanted is None) != (key not in models):
            found.append(f"{key[0]}/{key[1]}: wanted {wanted}, {'gone' if key not in models else 'still there'}")
        elif wanted is not None:
            found += _off(models[key], wanted, builds, items[DEPLOYMENT])
    return found


def _off(
    item: Object, wanted: Wanted, builds: dict[tuple[str, str], Object], deployments: Sequence[Object]
) -> list[str]:
    """How a model differs from what its user wants."""
    name, status = _name(item), item.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
    ready = conditions.get("Ready", {})
    if ready.get("status") != "True" or status.get("observedGeneration") != item["metadata"]["generation"]:
        return [f"{name}: not Ready with its spec: {ready.get('reason')}: {ready.get('message')}"]
    build = builds.get((item["metadata"]["namespace"], status["active"]["engineBuild"]))
    batch = build and build["spec"]["recipe"]["limits"]["maxBatchSize"]
    own = [
        entry for entry in deployments
        if any(owner["uid"] == item["metadata"]["uid"] for owner in entry["metadata"].get("ownerReferences", []))
    ]  # fmt: skip
    counts = [(entry["spec"]["replicas"], entry.get("status", {}).get("readyReplicas", 0)) for entry in own]
    if batch != wanted.batch or counts != [(wanted.replicas, wanted.replicas)]:
        return [f"{name}: wanted {wanted}, serves maxBatchSize {batch} with (replicas, ready) {counts}"]
    return []


async def _until_quiet(cluster: KubernetesCluster, users: Users, jobs: Jobs) -> float:
    """Seconds until nothing is wrong any more and nothing changes, at most LAST_SECONDS."""
    begun, since, before = time.monotonic(), time.monotonic(), ""
    while time.monotonic() - begun < LAST_SECONDS:
        kinds = (OPTIMIZED_MODEL, ENGINE_BUILD, JOB, DEPLOYMENT, POD)
        listed = [await cluster.list(kind) for kind in kinds]
        now = str([(_name(item), item["metadata"]["resourceVersion"]) for items in listed for item in items])
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
            jobs.told(event.type, event.object)

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
        "jobs": len(jobs.begun), "seconds": round(time.monotonic() - started, 1), "settled_seconds": round(settled, 1),
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


def _name(item: Object) -> str:
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


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
