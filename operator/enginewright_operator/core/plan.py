"""The chain: read top to bottom, it is what the product does with a model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

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
    return Plan(draft.effects, {"generation": str(snapshot.generation)}, snapshot.generation)


__all__ = ["POLICIES", "plan_build", "plan_class", "plan_model"]
