"""Whether the operator's memory stays flat while models come, change and go, on a real API server.

    python -m benchmarks.operator_soak [--models 200] [--rate 5] [--seconds 900] [--seed 0] [--json FILE]

One operator process, as in `benchmarks.operator_scale` (its artifacts are in the store already, replicas 0). Users
change something `--rate` times a second: a model's recipe, back, its batching, or it is deleted and made again; the
acts and their order follow from the seed. The resident size of the process is read every second. A process that leaks
does so by what it does, not by the clock: so many acts stand for as many seconds of the bar's one act a second.

The resident size also holds what the allocators keep in reserve, which grows by the megabyte and at no rate that could
be told in a run of minutes. Therefore every model is made as it was at first, half-way and at the end, and what the
process's objects take is counted once it is quiet: the same content, so that nothing but a leak makes a difference.

    rss_growth        median of the last tenth over the median of the second tenth, less 1; bar: 0.05
    rss_kb_an_act     slope of the second half (least squares)
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
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
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

    async def create_all(self) -> None:
        """Every model once."""
        for number in self._alive:
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


@dataclass
class Soak:
    """One operator process and its users."""

    users: Users
    process: Process
    models: int
    rate: float
    sizes: list[tuple[int, float]] = field(default_factory=list)
    """(acts so far, megabytes), read every second of the acts."""

    async def act(self, numbers: range) -> float:
        """So many acts; the seconds that they took."""
        begun = told = time.monotonic()
        for done, number in enumerate(numbers):
            await asyncio.sleep(max(0.0, begun + done / self.rate - time.monotonic()))
            await self.users.act()
            if time.monotonic() - told >= 1.0:
                told = time.monotonic()
                self.sizes.append((number, self.process.ask().rss_megabytes))
        return time.monotonic() - begun

    async def live_blocks(self) -> int:
        """Of the process when every model is as it was at first and no former engine is left."""
        await self.users.create_all()
        await self.process.until_quiet(self.models, DRAIN_SECONDS + QUIET_SECONDS)
        return self.process.live_blocks()


async def measured(kubeconfig: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of a run."""
    cluster = await KubernetesCluster.from_kubeconfig(kubeconfig)
    await cluster.apply(accelerator_class())
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORKSPACE}})
    users, process = Users(cluster, given.models, given.seed), Process(kubeconfig)
    soak, acts = Soak(users, process, given.models, given.rate), int(given.rate * given.seconds)
    half = acts // 2
    try:
        await soak.live_blocks()
        seconds = await soak.act(range(half))
        early = await soak.live_blocks()
        seconds += await soak.act(range(half, acts))
        late = await soak.live_blocks()
    finally:
        process.end()
        await cluster.delete(Ref(NAMESPACE, WORKSPACE))
        await cluster.close()
    return {
        **growth(soak.sizes),
        "live_blocks": late,
        "live_growth_a_day": round((late / early - 1) * ACTS_A_DAY / (acts - half), 4),
        "acts": dict(users.done),
        "acts_a_second": round(acts / seconds, 2),
        "megabytes_after_acts": [(acts, round(size, 1)) for acts, size in soak.sizes[::30]],
    }


def growth(sizes: list[tuple[int, float]]) -> dict[str, float]:
    """Figures of sizes in the order they were read. At least 20 of them."""
    tenth = len(sizes) // 10
    early = median(size for _, size in sizes[tenth : 2 * tenth])
    late = median(size for _, size in sizes[-tenth:])
    half = sizes[len(sizes) // 2 :]
    slope = linear_regression([acts for acts, _ in half], [size for _, size in half]).slope
    return {
        "rss_megabytes": round(late, 1),
        "rss_growth": round(late / early - 1, 4),
        "rss_kb_an_act": round(1000 * slope, 3),
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
