"""Whether the operator's memory stays flat while models come, change and go, on a real API server.

    python -m benchmarks.operator_soak [--models 200] [--rate 5] [--seconds 900] [--seed 0] [--json FILE]

One operator process, as in `benchmarks.operator_scale` (its artifacts are in the store already, replicas 0). Users
change something `--rate` times a second: a model's recipe, back, its batching, or it is deleted and made again; the
acts and their order follow from the seed. The resident size of the process is read every second. A process that leaks
does so by what it does, not by the clock: so many acts stand for as many seconds of the bar's one act a second.

Sizes are compared at rest: after a tenth of the acts, half-way and at the end every model is made as it was at first,
one after the other at the same rate, and the process is looked at once it is quiet. The same content, reached in the
same way, so that nothing but a leak makes a difference: many models written at once would be a peak that the resident
size keeps. It also holds what the allocators have in reserve, which grows by the megabyte and at no rate that could be
told in a run of minutes; what the process's objects take is counted by itself, and made a day's.

    rss_growth        resident size at the end over that half-way, less 1: before, the process warms up; bar: 0.05
    rss_kb_an_act     slope of the second half's readings (least squares)
    live_blocks       of Python's allocator, at the end
    live_growth_a_day what the second half added to the live blocks, over those half-way, made 86,400 acts; bar: 0.05
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

from benchmarks.operator_scale import DRAIN_SECONDS, QUIET_SECONDS, Process
from enginewright_api.crd import definitions
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import NAMESPACE, OPTIMIZED_MODEL, Ref
from tests.kube.harness import private_cluster
from tests.scenarios.models import accelerator_class, model

BAR = 0.05
ACTS_A_DAY = 86_400
WORKSPACE = "soak"


class Users:
    """Change one model after the other."""

    def __init__(self, cluster: KubernetesCluster, models: int, seed: int) -> None:
        self._cluster = cluster
        self._dice = random.Random(seed)  # noqa: S311 - order, not a secret
        self._alive = dict.fromkeys(range(models), False)
        self.done: Counter[str] = Counter()

    async def restore(self, number: int) -> None:
        """A model as it was at first."""
        await self._write(number, batch=8, delay=0)

    async def act(self) -> None:
        """One change."""
        number = self._dice.choice(list(self._alive))
        deletes = self._alive[number] and self._dice.random() < 0.1
        if deletes:
            await self._cluster.delete(Ref(OPTIMIZED_MODEL, _name(number), WORKSPACE))
            self._alive[number] = False
            self.done["delete"] += 1
        else:
            self.done["change" if self._alive[number] else "create"] += 1
            await self._write(number, batch=self._dice.choice((8, 16)), delay=self._dice.choice((0, 500, 1000)))

    async def _write(self, number: int, *, batch: int, delay: int) -> None:
        manifest = model(
            _name(number),
            WORKSPACE,
            replicas=0,
            engine={"limits": {"maxBatchSize": batch, "maxInputTokens": 32 + number % 400}},
            batching={"maxQueueDelayMicroseconds": delay},
        )
        await self._cluster.apply(manifest, field_manager="user")
        self._alive[number] = True


def _name(number: int) -> str:
    return f"model-{number:04}"


@dataclass(frozen=True)
class Rest:
    """The process once it is quiet, with every model as it was at first and no former engine left."""

    acts: int
    rss_megabytes: float
    live_blocks: int


@dataclass
class Soak:
    """One operator process and its users."""

    users: Users
    process: Process
    models: int
    rate: float
    sizes: list[tuple[int, float]] = field(default_factory=list)
    """(acts so far, megabytes), read every second of the acts."""
    acts: int = 0
    seconds: float = 0.0
    """That the acts took."""

    async def rest_after(self, acts: int) -> Rest:
        """Acts until there were so many, then all as at first."""
        begun = told = time.monotonic()
        async for number in self._paced(range(self.acts, acts)):
            await self.users.act()
            if time.monotonic() - told >= 1.0:
                told = time.monotonic()
                self.sizes.append((number, self.process.ask().rss_megabytes))
        self.acts, self.seconds = acts, self.seconds + time.monotonic() - begun
        async for number in self._paced(range(self.models)):
            await self.users.restore(number)
        found = await self.process.until_quiet(self.models, DRAIN_SECONDS + QUIET_SECONDS)
        return Rest(acts, found.rss_megabytes, self.process.live_blocks())

    async def _paced(self, numbers: range) -> AsyncIterator[int]:
        begun = time.monotonic()
        for done, number in enumerate(numbers):
            await asyncio.sleep(max(0.0, begun + done / self.rate - time.monotonic()))
            yield number


async def measured(kubeconfig: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of a run."""
    cluster = await KubernetesCluster.from_kubeconfig(kubeconfig)
    await cluster.apply(accelerator_class())
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORKSPACE}})
    users, process = Users(cluster, given.models, given.seed), Process(kubeconfig)
    soak, acts = Soak(users, process, given.models, given.rate), int(given.rate * given.seconds)
    try:
        await soak.rest_after(0)
        rests = [await soak.rest_after(number) for number in (acts // 10, acts // 2, acts)]
    finally:
        process.end()
        await cluster.delete(Ref(NAMESPACE, WORKSPACE))
        await cluster.close()
    return {
        **growth(rests, soak.sizes),
        "acts": dict(users.done),
        "acts_a_second": round(acts / soak.seconds, 2),
        "megabytes_at_rest": [(rest.acts, round(rest.rss_megabytes, 1)) for rest in rests],
        "megabytes_after_acts": [(acts, round(size, 1)) for acts, size in soak.sizes[::30]],
    }


def growth(rests: Sequence[Rest], sizes: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Figures of the last two rests, and of sizes in the order they were read: two at least between these."""
    *_, half, last = rests
    later = [(acts, size) for acts, size in sizes if acts >= half.acts]
    slope = linear_regression([acts for acts, _ in later], [size for _, size in later]).slope
    live = last.live_blocks / half.live_blocks - 1
    return {
        "rss_megabytes": round(last.rss_megabytes, 1),
        "rss_growth": round(last.rss_megabytes / half.rss_megabytes - 1, 4),
        "rss_kb_an_act": round(1000 * slope, 3),
        "live_blocks": last.live_blocks,
        "live_growth_a_day": round(live * ACTS_A_DAY / (last.acts - half.acts), 4),
    }


def main() -> int:
    """Exit code 1 when memory grew by more than a bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5.0, help="acts a second")
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    if given.seconds < 20:
        parser.error("--seconds: at least 20, one reading a second")
    with private_cluster("control", "kwok") as kube:
        kube.install_crds(definitions())
        found = asyncio.run(measured(kube.kubeconfig, given))
    print(json.dumps(found))
    if given.json is not None:
        given.json.write_text(json.dumps({"cpus": os.cpu_count(), **found}, indent=1) + "\n")
    return 0 if max(found["rss_growth"], found["live_growth_a_day"]) <= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
