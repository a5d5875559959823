"""A small world around the operator: time that tests move, a store, builders and servers that behave as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from enginewright_api.errors import EnginewrightError
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.manifest import Evidence
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    CONFIG_MAP,
    DEPLOYMENT,
    ENGINE_BUILD,
    EVENT,
    JOB,
    NODE,
    OPTIMIZED_MODEL,
    POD,
    SERVICE,
    Cluster,
    Kind,
    NotFoundError,
    Object,
    Ref,
)
from enginewright_operator.core.settings import OperatorSettings
from enginewright_operator.core.snapshot import Published
from enginewright_operator.core.traffic import Answers, Traffic
from enginewright_operator.shell.operator import Operator
from enginewright_operator.shell.waiting import Key
from tests.scenarios.controllers import Controllers
from tests.scenarios.evidence import artifact, evidence, success
from tests.scenarios.kubelet import Attempt, Builder, Kubelet
from tests.scenarios.models import accelerator_class, model, settings


class Stepping(Protocol):
    """Something in the world that reacts."""

    async def step(self) -> bool:
        """Whether anything was written."""
        ...


@dataclass
class Store:
    """Artifacts that builders published."""

    artifacts: dict[str, list[Evidence]] = field(default_factory=dict)

    async def find(self, key: str, requests: Sequence[EvidenceRequest]) -> Published | None:
        """As the operator looks them up."""
        found = self.artifacts.get(key)
        return Published(artifact(key), tuple(found)) if found else None


@dataclass
class Gateways:
    """What the gateways counted, in whatever window they are asked for; nothing when they are silent."""

    stable: Answers = field(default_factory=Answers)
    canary: Answers = field(default_factory=Answers)
    answer: bool = True
    asked: list[str] = field(default_factory=list)

    async def find(self, model: str, window: str) -> Traffic | None:
        """As the operator looks them up."""
        self.asked.append(window)
        if not self.answer:
            return Traffic(window, gateways=1, silent=("http://gateway.test",))
        return Traffic(window, self.stable, self.canary, gateways=1)


@dataclass
class Moving:
    """A clock that only tests move."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass
class Shifted:
    """The real clock, moved forward by tests: for clusters whose own clock is real."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += timedelta(seconds=seconds)


class World:
    """The operator on a cluster. `settle` runs everything until nothing moves."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        clock: Moving | Shifted,
        operator_settings: OperatorSettings | None = None,
        real: bool = False,
        namespace: str = "default",
    ) -> None:
        """`real`: the cluster has controllers of its own, which take their time."""
        self.real = real
        self.cluster = cluster
        self.namespace = namespace
        self.clock = clock
        self.store = Store()
        self.gateways = Gateways()
        self.settings = operator_settings or settings()
        self.kubelet = Kubelet(cluster, self.published(), namespace=namespace)
        self.add_ons: tuple[Kind, ...] = ()
        """Kinds beyond those that every cluster has, to be waited for as well."""
        self.controllers: list[Stepping] = [Controllers(cluster, self.clock, namespace)] if not real else []
        self.operator = self.restarted()

    def restarted(self) -> Operator:
        """A new operator process: nothing is remembered but what the cluster holds."""
        self.operator = Operator(
            self.cluster, self.store, self.settings, self.clock, namespace=self.namespace, traffic=self.gateways
        )
        return self.operator

    def published(self, **measured: float) -> Builder:
        """A builder that succeeds, measures so and puts the artifact into the store."""

        def build(attempt: Attempt) -> BuildOutcome:
            found = evidence(attempt.request_digest, **measured)
            self.store.artifacts.setdefault(attempt.key, []).append(found)
            return success(attempt.key, found)

        return build

    async def keys(self) -> list[Key]:
        """Every object that the operator reconciles."""
        found = []
        for kind in (ACCELERATOR_CLASS, OPTIMIZED_MODEL, ENGINE_BUILD):
            for item in await self.cluster.list(kind, namespace=self.namespace if kind.namespaced else None):
                metadata = item["metadata"]
                found.append(Key(kind.kind, metadata.get("namespace", "") if kind.namespaced else "", metadata["name"]))
        return found

    async def round(self) -> None:
        """One visit of every key; what fails is tried again in the next round."""
        keys = await self.keys()
        if self.real:
            await asyncio.gather(*(self._visit(key) for key in keys))
            return
        for key in keys:
            await self._visit(key)

    async def _visit(self, key: Key) -> None:
        with contextlib.suppress(EnginewrightError):
            await self.operator.visit(key)

    async def settle(self, rounds: int = 60) -> None:
        """Rounds of operator, controllers and kubelet until nothing is written any more."""
        quiet = 0
        for _ in range(rounds * (5 if self.real else 1)):
            before = await self.versions()
            await self.round()
            await self.step()
            if self.real:
                await asyncio.sleep(0.1)
            quiet = quiet + 1 if await self.versions() == before else 0
            if quiet >= (3 if self.real else 1) and not await self._controllers_behind():
                return
        raise AssertionError("still moving")

    async def _controllers_behind(self) -> bool:
        """Whether a real cluster's controllers have yet to act on what they were given."""
        if not self.real:
            return False
        jobs = await self.cluster.list(JOB, namespace=self.namespace)
        pods = await self.cluster.list(POD, namespace=self.namespace)
        started = {pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") for pod in pods}
        finished = {pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") in ("Succeeded", "Failed")}
        for job in jobs:
            ended = any(
                item["type"] in ("Complete", "Failed") and item["status"] == "True"
                for item in job.get("status", {}).get("conditions", ())
            )
            own_finished = any(name.startswith(job["metadata"]["name"]) for name in finished)
            if not ended and (job["metadata"]["name"] not in started or own_finished):
                return True
        deployments = await self.cluster.list(DEPLOYMENT, namespace=self.namespace)
        return any(
            item.get("status", {}).get("observedGeneration", 0) < item["metadata"].get("generation", 0)
            for item in deployments
        )

    async def step(self) -> None:
        """One step of everything but the operator."""
        for part in (*self.controllers, self.kubelet):
            await part.step()

    async def versions(self) -> dict[str, str]:
        """resourceVersion of everything the operator, controllers and kubelet write; Events only of our programs."""
        kinds = (OPTIMIZED_MODEL, ENGINE_BUILD, JOB, POD, DEPLOYMENT, SERVICE, CONFIG_MAP, EVENT, *self.add_ons)
        listed = await asyncio.gather(*(self.cluster.list(kind, namespace=self.namespace) for kind in kinds))
        found = {}
        for kind, items in zip(kinds, listed, strict=True):
            for item in items:
                if kind == EVENT and not item.get("reportingComponent", "").startswith("enginewright"):
                    continue  # a scheduler's or kubelet's, which comes when it likes
                found[f"{kind.kind}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
        return found

    async def steady_versions(self) -> dict[str, str]:
        """Likewise without pods: kubelets report on them when they like, and our programs may not write them."""
        return {name: version for name, version in (await self.versions()).items() if not name.startswith("Pod/")}

    async def wait_for(self, seconds: float) -> None:
        """Let time pass, then settle."""
        self.clock.forward(seconds)
        await self.settle()

    # What tests look at

    async def apply(self, name: str = "search", **spec: Any) -> None:
        """What `kubectl apply` of a whole OptimizedModel does."""
        await self.cluster.apply(model(name, self.namespace, **spec), field_manager="user")

    async def give_class(self) -> None:
        """The class that always exists."""
        await self.cluster.apply(accelerator_class())

    async def give_node(self, pool: str, *, ready: str = "True") -> None:
        """The node of a pool, of eight CPUs; `ready` Unknown: it has stopped to report."""
        metadata = {"name": pool, "labels": {"pool": pool}}
        await self.cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        status = {"allocatable": {"cpu": "8"}, "conditions": [{"type": "Ready", "status": ready}]}
        await self.cluster.patch_status(Ref(NODE, pool), status)

    async def model(self, name: str = "search") -> Object:
        """A model as it stands."""
        return await self.cluster.get(Ref(OPTIMIZED_MODEL, name, self.namespace))

    async def condition(self, type_: str, name: str = "search") -> tuple[str, str, str]:
        """Status, reason and message of one condition."""
        found = {item["type"]: item for item in (await self.model(name))["status"]["conditions"]}[type_]
        return found["status"], found["reason"], found.get("message", "")

    async def names(self, kind: Kind) -> list[str]:
        """Names of all objects of a kind."""
        return [item["metadata"]["name"] for item in await self.cluster.list(kind, namespace=self.namespace)]

    async def one(self, kind: Kind, name: str) -> Object | None:
        """An object, or None."""
        try:
            return await self.cluster.get(Ref(kind, name, self.namespace))
        except NotFoundError:
            return None

    async def events(self) -> list[tuple[str, str, str]]:
        """(object, type, reason) of all Events."""
        items = await self.cluster.list(EVENT, namespace=self.namespace)
        return [(item["involvedObject"]["name"], item["type"], item["reason"]) for item in items]
