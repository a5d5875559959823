"""The operator against a real API server with N models: the bars of docs/operations.md.

    python -m benchmarks.operator_scale --objects 100 --objects 1000 [--json FILE]

Boots an API server with its controllers and kwok (tests/kube). Each model has what a model in service has: its
EngineBuild, Deployment, Service and ConfigMap; its artifact is in the store already, so that no builder runs, and
it is scaled to zero replicas, so that no N pods have to be played. The operator is a process of its own.

    create_p99_seconds     N models created at once (100 a second): until a model's Deployment and Service exist
    writes_per_model       of the operator, from a model's creation until nothing moves; Events left out
    early_per_model        statuses of models and Events it wrote while children of others were yet to come
    events_per_model       Events it wrote meanwhile
    visits_per_model       of models and builds, meanwhile
    cpu_ms_per_model       processor time of the operator, meanwhile
    create_floor_seconds   p99 of the same when a client that decides nothing writes the same objects while no operator
                           runs: what this API server and its controllers take by themselves
    cold_start_seconds     a new operator process: until every model was visited
    steady_writes          what it wrote meanwhile; nothing had changed
    rss_megabytes          of that process, afterwards
    loop_lag_p99_ms        of that process: by how much a sleep of its event loop is longer than asked for
    event_to_effect_p95_ms a Deployment is scaled by hand in the quiet cluster: until the operator has put it right
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from benchmarks.bare_writes import write_copies
from enginewright_api.crd import definitions
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.names import LABEL_MODEL
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.kubernetes_connection import Call
from enginewright_cluster.port import (
    DEPLOYMENT,
    NAMESPACE,
    OPTIMIZED_MODEL,
    SERVICE,
    EventType,
    Ref,
)
from enginewright_operator.core.snapshot import Published
from enginewright_operator.shell.operator import Operator
from tests.kube.harness import private_cluster
from tests.scenarios.evidence import artifact, evidence
from tests.scenarios.models import accelerator_class, model, settings

BARS = {
    "create_p99_seconds": 30.0,
    "writes_per_model": 0.0,
    "early_per_model": 0.0,
    "events_per_model": 0.0,
    "visits_per_model": 0.0,
    "cpu_ms_per_model": 0.0,
    "create_floor_seconds": 0.0,
    "cold_start_seconds": 60.0,
    "steady_writes": 0.0,
    "rss_megabytes": 300.0,
    "loop_lag_p99_ms": 250.0,
    "event_to_effect_p95_ms": 250.0,
}
"""Reference of each row, for 10,000 objects (creation: 1,000); 0 where there is none."""
CREATIONS_PER_SECOND = 100
NAMESPACES = 10
DRAIN_SECONDS = 10.0
"""The operator's default: former engines live on for so long."""
QUIET_SECONDS = 5.0
TICK_SECONDS = 0.05
LAGS = 2_000
"""Of late that are kept: what the process keeps for the benchmark must not grow, its memory is measured."""
EVENTS = 40
LONGEST_SECONDS, LONGEST_SECONDS_A_MODEL = 450.0, 0.15


class Figures(NamedTuple):
    """What an operator process tells of itself."""

    visited: int
    """Models."""
    visits: int
    writes: Counter[str]
    """By verb and plural."""
    cpu_seconds: float
    last_visit_at: float
    """Monotonic."""
    rss_megabytes: float
    lag_seconds: float
    """p99 of its event loop, of late."""


LIVE = "live"
"""Asks an operator process for the blocks that it has in use; anything else, for its figures."""


class FullStore:
    """Every artifact that is asked for was published."""

    async def find(self, key: str, requests: Sequence[EvidenceRequest]) -> Published | None:
        """As `StoreLookup`."""
        return Published(artifact(key), tuple(evidence(request.digest) for request in requests))


class Counted(Operator):
    """Knows which models it visited."""

    visited: set[str]
    visits: int
    last_visit_at: float

    async def visit(self, key: Any) -> float | None:
        """As `Operator.visit`."""
        again = await super().visit(key)
        self.visits += 1
        if key.kind == OPTIMIZED_MODEL.kind:
            self.visited.add(f"{key.namespace}/{key.name}")
        self.last_visit_at = time.monotonic()
        return again


def _operator_process(kubeconfig: Path, pipe: Connection) -> None:
    """Runs an operator; answers each question on the pipe with what it counted so far."""

    async def run() -> None:
        writes: Counter[str] = Counter()
        began_seconds = time.process_time()

        def observe(call: Call) -> None:
            if call.verb in ("apply", "create", "patch", "delete"):
                writes[f"{call.verb} {call.plural}"] += 1

        cluster = await KubernetesCluster.from_kubeconfig(kubeconfig, observe=observe)
        operator = Counted(cluster, FullStore(), settings(drain_seconds=DRAIN_SECONDS))
        operator.visited, operator.visits, operator.last_visit_at = set(), 0, time.monotonic()
        task = asyncio.create_task(operator.run())
        lags = deque([0.0], maxlen=LAGS)
        while not task.done():
            asleep_at = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            lags.append(time.monotonic() - asleep_at - TICK_SECONDS)
            if not pipe.poll():
                continue
            if pipe.recv() == LIVE:
                pipe.send(_live_blocks())
                continue
            pipe.send(
                Figures(
                    len(operator.visited), operator.visits, writes,
                    time.process_time() - began_seconds, operator.last_visit_at,
                    _rss_megabytes(), _percentile(lags, 99),
                )
            )  # fmt: skip
        task.result()

    asyncio.run(run())


def _rss_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _live_blocks() -> int:
    """Of Python's allocator, without garbage: a leak of objects shows here whatever the allocators hold in reserve."""
    gc.collect()
    return sys.getallocatedblocks()


class Process:
    """An operator process."""

    def __init__(self, kubeconfig: Path) -> None:
        self.started_at = time.monotonic()
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_operator_process, args=(kubeconfig, theirs), daemon=True)
        self._process.start()

    def ask(self) -> Figures:
        """As of now."""
        self._pipe.send(None)
        answer: Figures = self._pipe.recv()
        return answer

    def live_blocks(self) -> int:
        """Blocks of memory that its objects are in, as of now."""
        self._pipe.send(LIVE)
        blocks: int = self._pipe.recv()
        return blocks

    async def until_quiet(self, models: int, seconds: float = QUIET_SECONDS) -> Figures:
        """When every model was visited and nothing more was for so many seconds."""
        begun = time.monotonic()
        while True:
            await asyncio.sleep(0.2)
            found = self.ask()
            if found.visited >= models and time.monotonic() - found.last_visit_at > seconds:
                return found
            if time.monotonic() - begun > _longest(models):
                raise SystemExit(f"after {_longest(models):g} s {found.visited} of {models} models were visited")

    def end(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()


async def measured(kubeconfig: Path, objects: int) -> dict[str, float]:
    """All cases for one number of models."""
    cluster = await KubernetesCluster.from_kubeconfig(kubeconfig)
    group = f"scale-{objects}"
    namespaces = [f"{group}-{number}" for number in range(NAMESPACES)]
    try:
        await cluster.apply(accelerator_class())
        for name in namespaces:
            await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        first = Process(kubeconfig)
        try:
            created = await _created(cluster, namespaces, objects)
            written = first.ask().writes
            early = written["patch optimizedmodels"] + written["create events"]
            making = await first.until_quiet(objects)
        finally:
            first.end()
        second = Process(kubeconfig)
        try:
            figures = await second.until_quiet(objects)
            found = {
                "create_p99_seconds": _percentile(created, 99),
                **_per_model(making, objects),
                "early_per_model": early / objects,
                "cold_start_seconds": figures.last_visit_at - second.started_at,
                "steady_writes": float(figures.writes.total()),
                "rss_megabytes": figures.rss_megabytes,
                "loop_lag_p99_ms": 1000 * figures.lag_seconds,
            }
            found["event_to_effect_p95_ms"] = 1000 * _percentile(await _repaired(cluster, namespaces), 95)
        finally:
            second.end()
        copies = {name: f"{name}-copy" for name in namespaces}
        namespaces += copies.values()
        found["create_floor_seconds"] = _percentile(
            await write_copies(cluster, copies, a_second=CREATIONS_PER_SECOND), 99
        )
        return found
    finally:
        for name in namespaces:
            await cluster.delete(Ref(NAMESPACE, name))
        await cluster.close()


def _per_model(found: Figures, objects: int) -> dict[str, float]:
    """What a new model costs, which does not depend on how busy the machine is."""
    events = found.writes["create events"]
    print(", ".join(f"{what} {number / objects:.2f}" for what, number in found.writes.most_common()), flush=True)
    return {
        "writes_per_model": (found.writes.total() - events) / objects,
        "events_per_model": events / objects,
        "visits_per_model": found.visits / objects,
        "cpu_ms_per_model": 1000 * found.cpu_seconds / objects,
    }


async def _created(cluster: KubernetesCluster, namespaces: list[str], objects: int) -> list[float]:
    """Seconds from a model's creation until its Deployment and Service are there."""
    begun: dict[tuple[str, str], float] = {}
    done: dict[tuple[str, str], dict[str, float]] = {}
    complete = asyncio.Event()

    async def follow(kind: Any) -> None:
        async for event in cluster.watch(kind, labels={"app.kubernetes.io/managed-by": "enginewright"}):
            metadata = event.object["metadata"]
            key = metadata["namespace"], metadata["labels"][LABEL_MODEL]
            if key in begun and event.type is EventType.ADDED:
                done.setdefault(key, {}).setdefault(kind.kind, time.monotonic())
                if sum(len(kinds) for kinds in done.values()) == 2 * objects:
                    complete.set()

    watches = [asyncio.create_task(follow(kind)) for kind in (DEPLOYMENT, SERVICE)]
    async with asyncio.TaskGroup() as group:
        for number in range(objects):
            name, namespace = f"model-{number:05}", namespaces[number % NAMESPACES]
            manifest = model(name, namespace, replicas=0, engine={"limits": {"maxInputTokens": 64 + number % 400}})
            begun[namespace, name] = time.monotonic()
            group.create_task(cluster.create(manifest))
            await asyncio.sleep(1 / CREATIONS_PER_SECOND)
    async with asyncio.timeout(_longest(objects)):
        await complete.wait()
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    return [max(done[key].values()) - begun[key] for key in begun]


async def _repaired(cluster: KubernetesCluster, namespaces: list[str]) -> list[float]:
    """Seconds from a foreign write to a Deployment until it is as it was."""
    items = (await cluster.list(DEPLOYMENT, namespace=namespaces[0]))[:EVENTS]
    found = []
    for number in range(EVENTS):
        item = items[number % len(items)]
        ref = Ref(DEPLOYMENT, item["metadata"]["name"], namespaces[0])
        begun = time.monotonic()
        await cluster.patch(ref, {"spec": {"progressDeadlineSeconds": 7000 + number}})
        while (await cluster.get(ref))["spec"]["progressDeadlineSeconds"] >= 7000:
            if time.monotonic() - begun > 30:
                raise SystemExit(f"{ref.name} was not repaired within 30 s")
            await asyncio.sleep(0.005)
        found.append(time.monotonic() - begun)
    return found


def _longest(models: int) -> float:
    return max(LONGEST_SECONDS, LONGEST_SECONDS_A_MODEL * models)


def _percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def main() -> None:
    """Print a row for each case and number, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, action="append", help="Models; may be given more than once.")
    parser.add_argument("--json", type=Path, help="Where to write the rows.")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for objects in given.objects or [100]:
        with private_cluster("control", "kwok") as kube:
            kube.install_crds(definitions())
            found = asyncio.run(measured(kube.kubeconfig, objects))
        for case, value in found.items():
            bar = BARS[case]
            row = {"case": f"{case} ({objects} objects)", "ours": round(value, 3), "reference": bar}
            rows.append({**row, "ratio": round(value / bar, 3) if bar else None})
            print(f"{row['case']:40} {value:10.2f}   bar {bar:g}", flush=True)
    if given.json is not None:
        facts = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "rows": rows}
        given.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
