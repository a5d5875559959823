"""Reads everything that a plan needs, afresh: no plan is made on data older than our own last write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from pydantic import ValidationError

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import BuildPhase, EngineBuild
from enginewright_api.errors import EnginewrightError
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.logs import facts, learnt
from enginewright_api.names import LABEL_BUILD_KEY, LABEL_MODEL
from enginewright_api.operation_spec import RolloutStrategy
from enginewright_api.rollout_status import RolloutState, RolloutStatus
from enginewright_cluster.informed import Informed
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    CONFIG_MAP,
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    LEADER_WORKER_SET,
    NODE,
    OPTIMIZED_MODEL,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    Kind,
    NotFoundError,
    Object,
    Ref,
)

from ..core.reading import mapping, parsed
from ..core.render.services import CANARY
from ..core.settings import OperatorSettings
from ..core.snapshot import BuildSnapshot, ClassSnapshot, ModelSnapshot, Published
from ..core.traffic import Traffic
from ..core.turns import BuildName, Wait, is_over, line, would_begin
from .gateway_figures import TrafficLookup
from .waiting import Key

LOG_LINES = 60
COUNT_SECONDS = 30.0
"""How long a count of nodes and pods is shared between classes."""
LINE_SECONDS = 1.0
"""How long one look at the line of builds is shared between them."""


class StoreLookup(Protocol):
    """What the store has under a key."""

    async def find(self, key: str, requests: Sequence[EvidenceRequest]) -> Published | None:
        """Artifact and evidence, None when nothing is published. Raises TransientError when the store is down."""
        ...


class Clock(Protocol):
    """Tells the time; aware, UTC."""

    def __call__(self) -> datetime: ...


class Gatherer:
    """Snapshots of one key each."""

    def __init__(
        self,
        cluster: Informed,
        store: StoreLookup,
        settings: OperatorSettings,
        clock: Clock,
        traffic: TrafficLookup,
        *,
        namespace: str | None = None,
    ) -> None:
        """`namespace`: the only one that is looked after; None for all."""
        self._cluster = cluster
        self._namespace = namespace
        self._traffic = traffic
        self._store = store
        self._settings = settings
        self._clock = clock
        self._classes: dict[str, tuple[str, AcceleratorClass]] = {}
        """Parsed, by name, with the resource version: every visit of every model needs them."""
        self._counted: tuple[datetime, tuple[Object, ...], tuple[Object, ...]] | None = None
        self._line: tuple[datetime, dict[BuildName, Wait | None]] | None = None

    async def model(self, key: Key) -> ModelSnapshot | None:
        """The model and its children; None when it is gone."""
        manifest = await self._get(Ref(OPTIMIZED_MODEL, key.name, key.namespace))
        if manifest is None:
            return None
        learnt(facts(manifest))
        mine, uid = {LABEL_MODEL: key.name}, manifest["metadata"].get("uid", "")
        # One after the other: all this is answered from memory, and tasks would cost more than the reads.
        deployments, groups = await self._workloads(key, mine)
        return ModelSnapshot(
            manifest=manifest,
            settings=self._settings,
            classes=self._valid_classes(await self._cluster.list(ACCELERATOR_CLASS)),
            builds=await self._cluster.named(ENGINE_BUILD, key.namespace),
            owned_builds=tuple(await self._cluster.owned(ENGINE_BUILD, key.namespace, uid)),
            deployments=deployments,
            groups=groups,
            pods=await self._list(POD, key, mine),
            config_maps=await self._list(CONFIG_MAP, key, mine),
            budgets=await self._list(POD_DISRUPTION_BUDGET, key, mine),
            service=await self._get(Ref(SERVICE, key.name, key.namespace)),
            canary_services=await self._canary_services(key, manifest),
            traffic=await self._canary_traffic(key, manifest),
        )

    async def is_outdated(self, key: Key, generation: int | None) -> bool:
        """Whether the model is gone, or has another spec than that of a generation; None asks nothing."""
        if generation is None:
            return False
        manifest = await self._get(Ref(OPTIMIZED_MODEL, key.name, key.namespace))
        return manifest is None or int(manifest["metadata"].get("generation", 1)) != generation

    async def _workloads(
        self, key: Key, labels: Mapping[str, str]
    ) -> tuple[tuple[Object, ...], tuple[Object, ...] | None]:
        """Deployments and LeaderWorkerSets; None for the latter where they are not installed."""
        deployments = await self._list(DEPLOYMENT, key, labels)
        try:
            return deployments, await self._list(LEADER_WORKER_SET, key, labels)
        except NotFoundError:
            return deployments, None

    async def _canary_services(self, key: Key, manifest: Object) -> tuple[Object, ...]:
        """Only where there may be any: a list costs every visit of every model."""
        steps = mapping(manifest, "spec", "rollout").get("strategy") == RolloutStrategy.CANARY
        if not steps and not mapping(manifest, "status").get("rollout"):
            return ()
        return await self._list(SERVICE, key, {LABEL_MODEL: key.name, "app.kubernetes.io/component": CANARY})

    async def _canary_traffic(self, key: Key, manifest: Object) -> Traffic | None:
        """What was counted since the canary's present step began."""
        try:
            record = RolloutStatus.model_validate(mapping(manifest, "status").get("rollout"))
        except ValidationError:
            return None
        if record.state is not RolloutState.CANARY or not record.weight:
            return None
        return await self._traffic.find(f"{key.namespace}/{key.name}", record.window)

    async def build(self, key: Key) -> BuildSnapshot | None:
        """The build, its Jobs and pods, and what the store has; None when it is gone."""
        manifest = await self._get(Ref(ENGINE_BUILD, key.name, key.namespace))
        if manifest is None:
            return None
        learnt(facts(manifest))
        try:
            build = parsed(EngineBuild.of, manifest)
        except ValidationError:
            return BuildSnapshot(manifest, self._settings)
        mine = {LABEL_BUILD_KEY: build.spec.key[:32], "app.kubernetes.io/component": "builder"}
        pods = await self._list(POD, key, mine)
        jobs = await self._list(JOB, key, mine)
        return BuildSnapshot(
            manifest=manifest,
            settings=self._settings,
            jobs=jobs,
            pods=pods,
            logs=await self._logs(build, key, pods),
            published=await self._published(build),
            accelerator=await self._class(build.spec.accelerator.accelerator_class),
            wait=await self._wait(key, manifest, jobs),
        )

    async def _wait(self, key: Key, manifest: Object, jobs: tuple[Object, ...]) -> Wait | None:
        """Whom the build waits for, where builds are limited.

        One look at the line is shared: whoever may begin in it may do so beside the others. A build that was not in it
        is newer than the look.
        """
        limits, now, name = self._settings.builds, self._clock(), (key.namespace, key.name)
        at_work = any(not is_over(job) for job in jobs)
        if not limits.limited or at_work or not would_begin(manifest, limits, now):
            return None  # it is in no line, and a look at all builds would be for nothing
        if self._line is None or name not in self._line[1] or now - self._line[0] > timedelta(seconds=LINE_SECONDS):
            builds = await self._cluster.list(ENGINE_BUILD, namespace=self._namespace)
            builders = await self._cluster.list(
                JOB, namespace=self._namespace, labels={"app.kubernetes.io/component": "builder"}
            )
            self._line = now, line(builds, builders, limits, now)
        return self._line[1].get(name)

    async def accelerator_class(self, key: Key) -> ClassSnapshot | None:
        """The class, all nodes and pods; None when it is gone."""
        manifest = await self._get(Ref(ACCELERATOR_CLASS, key.name))
        if manifest is None:
            return None
        now = self._clock()
        if self._counted is None or now - self._counted[0] > timedelta(seconds=COUNT_SECONDS):
            nodes, pods = await asyncio.gather(self._cluster.list(NODE), self._cluster.list(POD))
            self._counted = (now, tuple(nodes), tuple(pods))
        return ClassSnapshot(manifest, self._counted[1], self._counted[2])

    async def _published(self, build: EngineBuild) -> Published | None:
        known = {item.request_digest for item in build.status.evidence}
        missing = [request for request in build.spec.evidence if request.digest not in known]
        if not missing and build.status.artifact is not None:
            return None
        return await self._store.find(build.spec.key, missing)

    async def _logs(self, build: EngineBuild, key: Key, pods: tuple[Object, ...]) -> Mapping[str, str]:
        """Logs of pods that run or failed, while the build is not decided; they are for people, so none is no error."""
        if build.status.phase in (BuildPhase.SUCCEEDED, BuildPhase.FAILED):
            return {}
        names = [pod["metadata"]["name"] for pod in pods if pod.get("status", {}).get("phase") in ("Running", "Failed")]
        texts = await asyncio.gather(*(self._log(name, key.namespace) for name in names))
        return dict(zip(names, texts, strict=True))

    async def _log(self, pod: str, namespace: str) -> str:
        try:
            return await self._cluster.logs(Ref(POD, pod, namespace), container="builder", tail_lines=LOG_LINES)
        except EnginewrightError:
            return ""

    async def _class(self, name: str) -> AcceleratorClass | None:
        manifest = await self._get(Ref(ACCELERATOR_CLASS, name))
        return self._valid_classes([manifest]).get(name) if manifest is not None else None

    async def _list(self, kind: Kind, key: Key, labels: Mapping[str, str]) -> tuple[Object, ...]:
        return tuple(await self._cluster.list(kind, namespace=key.namespace, labels=labels))

    async def _get(self, ref: Ref) -> Object | None:
        try:
            return await self._cluster.get(ref)
        except NotFoundError:
            return None

    def _valid_classes(self, manifests: Sequence[Object]) -> dict[str, AcceleratorClass]:
        """Classes that parse; a malformed one says so in its own status and counts as missing here."""
        found = {}
        for manifest in manifests:
            name, version = manifest["metadata"]["name"], str(manifest["metadata"].get("resourceVersion", ""))
            known = self._classes.get(name)
            if known is None or known[0] != version or not version:
                try:
                    known = (version, parsed(AcceleratorClass.of, manifest))
                except ValidationError:
                    self._classes.pop(name, None)
                    continue
                self._classes[name] = known
            found[name] = known[1]
        return found
