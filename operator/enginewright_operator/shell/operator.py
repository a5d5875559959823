"""The operator: watches that enqueue keys, and visits that gather, plan and execute."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial

from enginewright_api import logs
from enginewright_api.errors import EnginewrightError, TransientError
from enginewright_api.names import LABEL_BUILD_KEY, LABEL_MODEL
from enginewright_cluster.informed import Informed
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    ENGINE_BUILD,
    OPTIMIZED_MODEL,
    Cluster,
    ConflictError,
    Kind,
    NotFoundError,
    WatchEvent,
)

from ..core.effects import Plan
from ..core.plan import plan_build, plan_class, plan_model
from ..core.settings import OperatorSettings
from .execution import Executor
from .gateway_figures import GatewayFigures, TrafficLookup
from .gathering import Clock, Gatherer, StoreLookup
from .metrics import Metrics
from .postponing import Postponing
from .queueing import Queue
from .telling import Teller
from .triggers import ADD_ONS, WATCHED, Triggers
from .waiting import Key

log = logging.getLogger(__name__)

RESYNC_SECONDS = 600.0
"""Every model is looked at this often, whatever the watches said."""
COUNT_SECONDS = 60.0
"""How often the accelerators of a class are counted."""
BEHIND_SECONDS = 2.0
"""Visits that are later than this do not wait for Events."""
WATCH_PAUSE_SECONDS = 1.0
ADD_ON_PAUSE_SECONDS = 60.0
"""How often it is looked whether a kind that the cluster lacks has come."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def _about(key: Key) -> AbstractContextManager[None]:
    """What all lines of a visit say: a model's name is known before it is read."""
    named = {"model": f"{key.namespace}/{key.name}"} if key.kind == OPTIMIZED_MODEL.kind else {}
    return logs.about(key=str(key), **named)


class Operator:
    """Runs until cancelled. State is in the cluster's objects only: it may be killed at any point."""

    def __init__(
        self,
        cluster: Cluster,
        store: StoreLookup,
        settings: OperatorSettings,
        clock: Clock = utc_now,
        *,
        namespace: str | None = None,
        workers: int = 8,
        metrics: Metrics | None = None,
        traffic: TrafficLookup | None = None,
    ) -> None:
        """`traffic`: who knows the figures of canaries; by default the gateways of the settings."""
        # The gatherer reads some hundred bytes of ten thousand objects over and over: from memory, once it watches.
        self._cluster = informed = Informed(
            cluster,
            [kind for kind, _ in WATCHED],
            (LABEL_MODEL, LABEL_BUILD_KEY),
            owned_kinds=(ENGINE_BUILD,),
            news=self._heard,
        )
        self._namespace = namespace
        self._clock = clock
        self._seen = metrics or Metrics()
        traffic = traffic or GatewayFigures(informed, settings.gateways)
        self._gatherer = Gatherer(informed, store, settings, clock, traffic, namespace=namespace)
        self._triggers = Triggers()
        self.queue = Queue(self.visit, workers=workers, failed=self._failed, begun=self._begun, around=_about)
        self._teller = Teller(informed, clock, lambda: self.queue.late_seconds > BEHIND_SECONDS)
        self._postponing = Postponing(self.queue.asks_for)
        self._executor = Executor(informed, self._teller.tell, self._seen.wrote)
        self._seen.follow_queue(lambda: self.queue.depth, lambda: self.queue.late_seconds)

    async def run(self) -> None:
        """Watch and work."""
        with self._seen.leading():
            await self._run()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind, labels in WATCHED:
                group.create_task(self._watch(kind, labels), name=f"watch-{kind.plural}")
            group.create_task(self._work(), name="queue")
            group.create_task(self._resync(), name="resync")
            group.create_task(self._teller.run(), name="events")

    async def _work(self) -> None:
        """Nothing is decided before the present is known: a model without its children in view looks new."""
        await self._cluster.begun()
        await self.queue.run()

    async def visit(self, key: Key) -> float | None:
        """Reconcile one key once. Answers when to look again. Raises what should be tried again later."""
        started = time.perf_counter()
        may_wait = self._postponing.visit(key)
        plan = await self._plan(key)
        again = None
        if plan is not None:
            logs.learnt(plan.labels)
            outdated = partial(self._gatherer.is_outdated, key, plan.generation)
            again = await self._executor.execute(plan, outdated, may_wait)
        if plan is not None and plan.writes:
            log.info("reconciled", extra={"writes": len(plan.writes)})
        self._seen.visited(key.kind, time.perf_counter() - started)
        if key.kind == ACCELERATOR_CLASS.kind and plan is not None:
            return COUNT_SECONDS
        return again

    async def _plan(self, key: Key) -> Plan | None:
        now = self._clock()
        if key.kind == OPTIMIZED_MODEL.kind:
            model = await self._gatherer.model(key)
            return None if model is None else plan_model(model, now)
        if key.kind == ENGINE_BUILD.kind:
            build = await self._gatherer.build(key)
            return None if build is None else plan_build(build, now)
        found = await self._gatherer.accelerator_class(key)
        return None if found is None else plan_class(found, now)

    async def _watch(self, kind: Kind, labels: dict[str, str] | None) -> None:
        namespace = self._namespace if kind.namespaced else None
        while True:
            pause = WATCH_PAUSE_SECONDS
            try:
                async for event in self._cluster.watch(kind, namespace=namespace, labels=labels):
                    self._seen.inventory.saw(kind, event)
            except TransientError as error:
                self._seen.inventory.forget(kind)
                log.warning("watch broke off", extra={"kind": kind.kind, "error": str(error)})
            except NotFoundError:
                if kind not in ADD_ONS:
                    raise
                pause = ADD_ON_PAUSE_SECONDS
            await asyncio.sleep(pause)

    def _heard(self, kind: Kind, event: WatchEvent) -> None:
        """Of what others wrote when its event comes, of what a visit wrote at once: that visit is followed by one."""
        for key in self._triggers.keys(kind, event):
            self.queue.add(key)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            for key in self._triggers.models:
                self.queue.add(key)

    def _begun(self, key: Key, late_seconds: float) -> None:
        self._seen.begun(key.kind, late_seconds)

    def _failed(self, key: Key, error: Exception, pause_seconds: float) -> None:
        expected = isinstance(error, EnginewrightError)
        level = logging.INFO if isinstance(error, ConflictError) else logging.WARNING if expected else logging.ERROR
        fields = {"error": str(error), "again_in_seconds": round(pause_seconds, 1)}
        log.log(level, "visit failed", extra=fields, exc_info=None if expected else error)
        self._seen.failed(key.kind, error)
