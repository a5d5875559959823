"""Models' lives as their users want them, and what does not hold of them at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from enginewright_api.names import LABEL_EVIDENCE
from enginewright_cluster.port import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    OPTIMIZED_MODEL,
    POD,
    SERVICE,
    Cluster,
    Kind,
    Object,
    Ref,
)
from tests.scenarios.models import model

ACTIONS = 4
"""Things that happen to each model after its creation."""
_REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")


@dataclass
class Jobs:
    """What the API server told of Jobs: for what each was made."""

    asked: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Uid → uid of the EngineBuild and what it is to measure."""

    def told(self, job: Object) -> None:
        """One event."""
        metadata = job["metadata"]
        owner = next(item["uid"] for item in metadata["ownerReferences"])
        self.asked[metadata["uid"]] = owner, metadata["labels"][LABEL_EVIDENCE]

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
                found.append(f"{kind.kind} {name_of(item)} lives on without its owner")
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
    name, status = name_of(item), item.get("status", {})
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


def name_of(item: Object) -> str:
    """Namespace and name."""
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"
