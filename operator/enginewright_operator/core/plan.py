"""The chain: read top to bottom, it is what the product does with a model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from enginewright_api.names import BUILD_PREFIX

from .acceptance import acceptance
from .build import plan_build
from .choice import choice
from .class_choice import class_choice
from .classes import plan_class
from .disruption import disruption
from .draft import Draft
from .effects import Plan
from .exposure import exposure
from .retention import retention
from .rollout import rollout
from .scaling import scaling
from .snapshot import ModelSnapshot
from .status import status

Policy = Callable[[Draft], Draft]

POLICIES: tuple[Policy, ...] = (
    acceptance, class_choice, choice, rollout, disruption, exposure, scaling, retention, status,
)  # fmt: skip


def plan_model(snapshot: ModelSnapshot, now: datetime) -> Plan:
    """Effects for one OptimizedModel. Children of a deleted one go with it, by their owner references."""
    if snapshot.manifest["metadata"].get("deletionTimestamp"):
        return Plan()
    draft = Draft(snapshot, now)
    for policy in POLICIES:
        draft = policy(draft)
    return Plan(draft.effects, _labels(draft), snapshot.generation)


def _labels(draft: Draft) -> dict[str, str]:
    """The build key of the engine that is wanted, or that is being built: that of the last rung, without a verdict."""
    if draft.target is not None:
        return {"buildKey": draft.target.rung.key[:16]}
    under_way = draft.rung_statuses[-1] if draft.rung_statuses else None
    if under_way is None or under_way.verdict is not None:
        return {}
    return {"buildKey": under_way.engine_build.removeprefix(BUILD_PREFIX)}


__all__ = ["POLICIES", "plan_build", "plan_class", "plan_model"]
