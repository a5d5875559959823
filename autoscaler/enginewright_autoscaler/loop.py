"""Observe, decide, act: for every model in mode Objectives, once a round."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from enginewright_api.errors import EnginewrightError
from enginewright_api.logs import about, facts
from enginewright_api.names import LABEL_MODEL
from enginewright_api.optimized_model import OptimizedModel, ScalingState
from enginewright_autoscaler import reporting
from enginewright_autoscaler.mirror import Mirror
from enginewright_autoscaler.policy import Decision, Figure, Observation, State, Tuning, config_of, decide
from enginewright_autoscaler.replicas import SERVER_LABELS, Replicas, count
from enginewright_autoscaler.signals import Signals
from enginewright_autoscaler.telemetry import Telemetry
from enginewright_cluster.port import (
    DEPLOYMENT,
    OPTIMIZED_MODEL,
    POD,
    Cluster,
    ConflictError,
    NotFoundError,
    Object,
    Ref,
)

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0


@dataclass(slots=True)
class _Memory:
    """What is kept about one model between rounds."""

    state: State = field(default_factory=State)
    missing_since: float | None = None
    changed_by: Decision | None = None
    """The last decision that changed the count: its figures explain the count, also if the reply got lost."""
    announced: tuple[int, int, ScalingState] | None = None
    """(before, after, state) of the last Event."""
    not_before: float = 0.0
    pause_seconds: float = 0.0
    problem: str = ""


class Loop:
    """Rounds over all models: decides on the mirror, and again on fresh reads before anything is written."""

    def __init__(
        self,
        cluster: Cluster,
        mirror: Mirror,
        signals: Signals,
        telemetry: Telemetry,
        *,
        tuning: Tuning,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
    ) -> None:
        self._cluster, self._mirror, self._signals, self._telemetry = cluster, mirror, signals, telemetry
        self._tuning, self._clock, self._wall = tuning, clock, wall
        self._memory: dict[str, _Memory] = {}

    async def round(self) -> None:
        """Visit every model; one model's trouble is not the others'."""
        manifests = {_key(manifest): manifest for manifest in self._mirror.models()}
        for gone in self._memory.keys() - manifests.keys():
            self._forget(gone)
        self._signals.forget(manifests)
        await asyncio.gather(*(self._visit(key, manifest) for key, manifest in manifests.items()))
        self._telemetry.round_ended()

    async def _visit(self, key: str, manifest: Object) -> None:
        memory = self._memory.setdefault(key, _Memory())
        if self._clock() < memory.not_before:
            return
        with about(**facts(manifest)):
            try:
                await self._scale(key, OptimizedModel.of(manifest), memory)
            except NotFoundError:
                log.info("%s is gone", key)
                self._forget(key)
            except (EnginewrightError, ValidationError) as problem:
                self._failed(key, memory, problem)
            else:
                memory.pause_seconds, memory.problem = 0.0, ""

    async def _scale(self, key: str, model: OptimizedModel, memory: _Memory) -> None:
        config = config_of(model.spec.scaling, self._tuning)
        if model.metadata.deletion_timestamp is not None:
            return
        if config is None:
            await self._hand_over(key, model)
            return
        namespace, name = model.metadata.namespace or "", model.metadata.name
        now = self._clock()
        replicas = count(self._mirror.deployments(namespace, name), self._mirror.pods(namespace, name))
        observation = self._observe(key, model, replicas, at=self._mirror.as_of(now))
        decision, state = decide(observation, memory.state, config, now)
        if self._tells_nothing_new(model, decision, memory, now):
            memory.state = state
            self._telemetry.decided(key, decision)
            return
        await self._confirm(key, _ref(model), memory)

    async def _confirm(self, key: str, ref: Ref, memory: _Memory) -> None:
        """Decide again on what the cluster says now, and write what is new."""
        model = OptimizedModel.of(await self._cluster.get(ref))
        config = config_of(model.spec.scaling, self._tuning)
        if config is None or model.metadata.deletion_timestamp is not None:
            return
        labels = {**SERVER_LABELS, LABEL_MODEL: ref.name}
        deployments = await self._cluster.list(DEPLOYMENT, namespace=ref.namespace, labels=labels)
        pods = await self._cluster.list(POD, namespace=ref.namespace, labels=labels)
        now = self._clock()
        observation = self._observe(key, model, count(deployments, pods), at=now)
        decision, memory.state = decide(observation, memory.state, config, now)
        self._telemetry.decided(key, decision)
        if self._tells_nothing_new(model, decision, memory, now):
            return
        await self._act(key, ref, model, decision, memory)

    async def _act(self, key: str, ref: Ref, model: OptimizedModel, decision: Decision, memory: _Memory) -> None:
        current, shown = model.spec.replicas, model.status.scaling
        at = self._wall()
        if decision.replicas != current:
            memory.changed_by = decision
            log.info("%s: %s", key, reporting.explained(decision))
            await self._cluster.scale(ref, decision.replicas)
            self._telemetry.changed(key)
        cause = memory.changed_by
        counted = cause is not None and shown is not None and shown.desired != decision.replicas
        told = cause if counted and cause is not None and cause.replicas == decision.replicas else decision
        why = reporting.explained(told if decision.state is ScalingState.FRESH else decision)
        before = current if shown is None or decision.replicas != current else shown.desired
        news = (before, decision.replicas, decision.state)
        if news != memory.announced:
            # Before the status, which says whether there is anything to tell: its reply may get lost.
            await self._tell(reporting.event(model, decision, before=before, why=why, at=at))
            memory.announced = news
        if reporting.outdated(shown, decision):
            status = reporting.next_status(shown, decision, why=why, before=current, at=at)
            await self._cluster.patch_status(
                ref, {"scaling": status.wire()}, uid=model.metadata.uid, field_manager=reporting.COMPONENT
            )

    async def _tell(self, event: Object) -> None:
        try:
            await self._cluster.create(event)
        except EnginewrightError as problem:
            # An Event is a courtesy; the decision stands and is in the status.
            log.warning("the Event %s could not be written: %s", event["reason"], problem.message)

    async def _hand_over(self, key: str, model: OptimizedModel) -> None:
        """The count is somebody else's: what we said about it is not true any more."""
        self._memory[key] = _Memory()
        self._telemetry.forget(key)
        if model.status.scaling is not None:
            await self._cluster.patch_status(
                _ref(model), {"scaling": None}, uid=model.metadata.uid, field_manager=reporting.COMPONENT
            )

    def _observe(self, key: str, model: OptimizedModel, replicas: Replicas, *, at: float) -> Observation:
        traffic = self._signals.traffic(key)
        return Observation(
            current_replicas=model.spec.replicas,
            ready=Figure(replicas.ready, at),
            starting=Figure(replicas.starting, at),
            pending=replicas.pending(now=self._clock(), wall=self._wall()),
            waiting=traffic.waiting,
            running=traffic.running,
            arrivals_per_second=traffic.arrivals_per_second,
            completions_per_second=traffic.completions_per_second,
            prompt_tokens_per_second=traffic.prompt_tokens_per_second,
            output_tokens_per_second=traffic.output_tokens_per_second,
            request_latency=traffic.request_latency,
            time_to_first_token=traffic.time_to_first_token,
            time_between_tokens=traffic.time_between_tokens,
        )

    def _tells_nothing_new(self, model: OptimizedModel, decision: Decision, memory: _Memory, now: float) -> bool:
        if decision.state is not ScalingState.METRICS_MISSING:
            memory.missing_since = None
        elif memory.missing_since is None:
            memory.missing_since = now
        if decision.replicas != model.spec.replicas:
            return False
        missing_since = memory.missing_since
        if missing_since is not None and now - missing_since < self._tuning.stale_after_seconds:
            # So it is for a moment after every start, of ours or of a gateway; not worth two writes.
            return True
        return not reporting.outdated(model.status.scaling, decision)

    def _failed(self, key: str, memory: _Memory, problem: EnginewrightError | ValidationError) -> None:
        reason = problem.reason if isinstance(problem, EnginewrightError) else "InvalidObject"
        self._telemetry.failed(key, reason)
        if not isinstance(problem, ConflictError):
            memory.pause_seconds = min(max(1.0, 2 * memory.pause_seconds), _LONGEST_PAUSE_SECONDS)
            memory.not_before = self._clock() + memory.pause_seconds
        if reason != memory.problem:
            log.warning("%s: trying again: %s", key, problem)
            memory.problem = reason

    def _forget(self, key: str) -> None:
        self._memory.pop(key, None)
        self._telemetry.forget(key)


def _key(manifest: Object) -> str:
    metadata = manifest["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


def _ref(model: OptimizedModel) -> Ref:
    return Ref(OPTIMIZED_MODEL, model.metadata.name, model.metadata.namespace)
