"""What there is, as the watches tell it: models by condition, builds by phase, accelerators, rollouts as they end.

Read when scraped, so that a figure is never of an object that is gone.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    ENGINE_BUILD,
    OPTIMIZED_MODEL,
    EventType,
    Kind,
    Object,
    WatchEvent,
)

from ..core.reading import mapping, objects

ROLLED_OUT = "RolledOut"
COMPLETED = "Completed"
"""Outcome of a rollout that went through; every other outcome is the reason of the condition."""


def _text(value: object) -> str:
    return sys.intern(value) if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is counted of an object, and no more: there may be ten thousand."""

    uid: str
    conditions: Mapping[str, tuple[str, str]]
    """Type to status and reason."""
    phase: str
    allocatable: int
    in_use: int

    @classmethod
    def of(cls, manifest: Object) -> Seen:
        """Of an object as the watch gave it."""
        status = mapping(manifest, "status")
        conditions = {
            _text(item.get("type")): (_text(item.get("status")), _text(item.get("reason")))
            for item in objects(status.get("conditions"))
        }
        phase = _text(status.get("phase")) or "Queued"
        uid = manifest["metadata"].get("uid", "")
        return cls(uid, conditions, phase, _count(status.get("allocatable")), _count(status.get("inUse")))


@dataclass(eq=False)
class Inventory(Collector):
    """Last state of every object that the operator looks after, by kind."""

    _objects: dict[str, dict[tuple[str, str], Seen]] = field(default_factory=dict)
    _rollouts: Counter[str] = field(default_factory=Counter)

    def saw(self, kind: Kind, event: WatchEvent) -> None:
        """One change of an object."""
        if kind not in (OPTIMIZED_MODEL, ENGINE_BUILD, ACCELERATOR_CLASS):
            return
        metadata = event.object["metadata"]
        known, key = self._objects.setdefault(kind.kind, {}), (metadata.get("namespace", ""), metadata["name"])
        before = known.pop(key, None)
        if event.type is EventType.DELETED:
            return
        known[key] = Seen.of(event.object)
        if kind == OPTIMIZED_MODEL and before is not None and before.uid == known[key].uid:
            self._ended(before, known[key])

    def forget(self, kind: Kind) -> None:
        """The watch of a kind broke off: the next one tells everything anew, but not what is gone by then."""
        self._objects.pop(kind.kind, None)

    def collect(self) -> Iterator[Metric]:
        """See the module."""
        models = GaugeMetricFamily(
            "enginewright_operator_models", "Models by condition.", labels=["condition", "status", "reason"]
        )
        waiting = GaugeMetricFamily(
            "enginewright_operator_model_not_ready", "1 for each model that is not Ready.", labels=["model", "reason"]
        )
        counts: Counter[tuple[str, str, str]] = Counter()
        for (namespace, name), found in sorted(self._all(OPTIMIZED_MODEL)):
            counts.update((type_, status, reason) for type_, (status, reason) in found.conditions.items())
            status, reason = found.conditions.get("Ready", ("Unknown", "NotVisited"))
            if status != "True":
                waiting.add_metric([f"{namespace}/{name}", reason], 1)
        for labels, count in sorted(counts.items()):
            models.add_metric(labels, count)
        rollouts = CounterMetricFamily(
            "enginewright_operator_rollouts", "Rollouts that ended, by outcome.", labels=["outcome"]
        )
        for outcome in sorted({COMPLETED, *self._rollouts}):
            rollouts.add_metric([outcome], self._rollouts[outcome])
        yield from (models, waiting, rollouts, self._builds(), self._accelerators())

    def _builds(self) -> Metric:
        family = GaugeMetricFamily("enginewright_operator_builds", "Builds by phase.", labels=["phase"])
        phases = Counter(found.phase for _, found in self._all(ENGINE_BUILD))
        for phase, count in sorted(phases.items()):
            family.add_metric([phase], count)
        return family

    def _accelerators(self) -> Metric:
        family = GaugeMetricFamily(
            "enginewright_operator_accelerators", "Accelerators of a class on its nodes.", labels=["class", "state"]
        )
        for (_, name), found in sorted(self._all(ACCELERATOR_CLASS)):
            family.add_metric([name, "allocatable"], found.allocatable)
            family.add_metric([name, "in_use"], found.in_use)
        return family

    def _all(self, kind: Kind) -> list[tuple[tuple[str, str], Seen]]:
        return list(self._objects.get(kind.kind, {}).items())

    def _ended(self, before: Seen, after: Seen) -> None:
        """Count a rollout when its condition came to hold, or failed in a new way."""
        was, now = before.conditions.get(ROLLED_OUT), after.conditions.get(ROLLED_OUT)
        if now is None or now == was:
            return
        status, reason = now
        if status == "True" and (was is None or was[0] != "True"):
            self._rollouts[COMPLETED] += 1
        elif status == "False" and reason not in ("NotAccepted", "NoEngine", "Paused"):
            self._rollouts[reason] += 1
