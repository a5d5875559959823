"""What a Deployment needs next: pods to make, pods to take away, its status. Pure.

The rules are those of the deployment controller, without ReplicaSets: pods carry the hash of their template, and an
update replaces those of another hash within maxSurge and maxUnavailable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..port import Object
from .conditions import Condition, with_condition
from .names import TEMPLATE_HASH
from .pods import condition, is_finished, is_leaving, is_ready, parse_time, ready_since, template_hash

_DEFAULT_DEADLINE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """What to do now. `again_seconds`: when time alone may change the answer."""

    create: int
    delete: tuple[Object, ...]
    status: dict[str, Any]
    again_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Counts:
    desired: int
    current: list[Object]
    old: list[Object]
    leaving: list[Object]
    ready: int
    available: int
    soonest_available_seconds: float | None

    @property
    def total(self) -> int:
        return len(self.current) + len(self.old)


def plan_deployment(
    deployment: Object, pods: Sequence[Object], now: datetime, *, exclusive: bool = False
) -> DeploymentPlan:
    """`exclusive`: its pods need fixed ports, so an old pod has to go before a new one can start."""
    spec = deployment["spec"]
    counts = _count(spec, pods, now)
    recreate = exclusive or (spec.get("strategy") or {}).get("type") == "Recreate"
    create, delete = _recreate(counts) if recreate else _rolling(spec, counts, now)
    delete += [pod for pod in pods if is_finished(pod) and not is_leaving(pod)]
    status, again = _status(deployment, counts, now)
    waits = [seconds for seconds in (again, counts.soonest_available_seconds) if seconds is not None]
    return DeploymentPlan(create, tuple(delete), status, min(waits, default=None))


def _count(spec: Mapping[str, Any], pods: Sequence[Object], now: datetime) -> _Counts:
    wanted = template_hash(spec["template"])
    alive = [pod for pod in pods if not is_leaving(pod) and not is_finished(pod)]
    current = [pod for pod in alive if pod["metadata"].get("labels", {}).get(TEMPLATE_HASH) == wanted]
    minimum = timedelta(seconds=float(spec.get("minReadySeconds", 0)))
    waits = [since + minimum - now for pod in alive if (since := ready_since(pod)) is not None]
    pending = [wait.total_seconds() for wait in waits if wait > timedelta(0)] if minimum else []
    return _Counts(
        desired=int(spec.get("replicas", 1)),
        current=current,
        old=[pod for pod in alive if pod not in current],
        leaving=[pod for pod in pods if is_leaving(pod)],
        ready=len(waits),
        available=len(waits) - len(pending),
        soonest_available_seconds=min(pending, default=None),
    )


def _recreate(counts: _Counts) -> tuple[int, list[Object]]:
    excess = _least_useful(counts.current)[: max(0, len(counts.current) - counts.desired)]
    blocked = counts.old or counts.leaving
    return (0 if blocked else max(0, counts.desired - len(counts.current))), [*counts.old, *excess]


def _rolling(spec: Mapping[str, Any], counts: _Counts, now: datetime) -> tuple[int, list[Object]]:
    update = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    surge = _share(update.get("maxSurge", "25%"), counts.desired, up=True)
    unavailable = _share(update.get("maxUnavailable", "25%"), counts.desired, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1  # both may round to nothing; then one at a time, as the controller does
    create = max(0, min(counts.desired - len(counts.current), counts.desired + surge - counts.total))
    excess = _least_useful(counts.current)[: max(0, len(counts.current) - counts.desired)]
    spare = counts.available - sum(is_ready(pod) for pod in excess) - (counts.desired - unavailable)
    gone = [pod for pod in counts.old if not is_ready(pod)]
    gone += [pod for pod in _least_useful(counts.old) if is_ready(pod)][: max(0, spare)]
    return create, [*gone, *excess]


def _share(value: int | str, desired: int, *, up: bool) -> int:
    """A number of pods, or a percentage of the desired ones."""
    if isinstance(value, str) and value.endswith("%"):
        exact = desired * int(value[:-1]) / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(value)


def _least_useful(pods: Sequence[Object]) -> list[Object]:
    """Not ready ones first, then the youngest."""
    youngest_first = sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)
    return sorted(youngest_first, key=is_ready)


def _status(deployment: Object, counts: _Counts, now: datetime) -> tuple[dict[str, Any], float | None]:
    before = deployment.get("status", {})
    unavailable = max(0, counts.desired - counts.available)
    status: dict[str, Any] = {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": counts.total,
        "updatedReplicas": len(counts.current),
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "unavailableReplicas": unavailable,
    }
    moved = any(before.get(key) != value for key, value in status.items())
    conditions = list(before.get("conditions") or ())
    enough = counts.available >= counts.desired - _share(
        ((deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}).get("maxUnavailable", "25%"),
        counts.desired,
        up=False,
    )
    conditions = with_condition(
        conditions,
        "Available",
        enough,
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"{counts.available} of {counts.desired} pods are available",
        now=now,
    )
    conditions, again = _progressing(deployment, conditions, counts, now, moved=moved)
    return status | {"conditions": conditions}, again


def _progressing(
    deployment: Object, conditions: list[Condition], counts: _Counts, now: datetime, *, moved: bool
) -> tuple[list[Condition], float | None]:
    complete = not counts.old and not counts.leaving and counts.available == counts.desired == len(counts.current)
    if complete:
        said = f"all {counts.desired} pods are new and available"
        return with_condition(conditions, "Progressing", True, "NewReplicaSetAvailable", said, now=now), None
    deadline = float(deployment["spec"].get("progressDeadlineSeconds", _DEFAULT_DEADLINE_SECONDS))
    before = condition({"status": {"conditions": conditions}}, "Progressing")
    said = f"{len(counts.current)} new pods, {counts.available} available, {counts.desired} wanted"
    # A finished rollout that lost a pod is repaired, not late: its deadline begins with the next update.
    fresh = before is None or before["reason"] == "NewReplicaSetAvailable" or moved
    if fresh:
        updated = with_condition(conditions, "Progressing", True, "ReplicaSetUpdated", said, now=now, updated=True)
        return updated, deadline
    elapsed = (now - parse_time(str(before["lastUpdateTime"]))).total_seconds() if before is not None else 0.0
    if elapsed < deadline:
        return conditions, deadline - elapsed
    late = f"no progress for {deadline:g} s: {said}"
    if before is not None and before["reason"] == "ProgressDeadlineExceeded":
        return conditions, None
    return with_condition(conditions, "Progressing", False, "ProgressDeadlineExceeded", late, now=now), None
