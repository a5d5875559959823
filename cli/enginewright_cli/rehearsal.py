"""The operator's own policies, run on a file instead of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from enginewright_api.accelerator_class import AcceleratorClass, AcceleratorClassStatus
from enginewright_api.errors import DeterministicError
from enginewright_api.meta import Condition, ConditionStatus
from enginewright_api.validation import with_defaults
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.candidates import Pool
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.classes import HAS_NODES
from enginewright_operator.core.conditions import rfc3339
from enginewright_operator.core.draft import Draft, Rung
from enginewright_operator.core.effects import Apply, Create
from enginewright_operator.core.plan import plan_build, plan_model
from enginewright_operator.core.settings import OperatorSettings
from enginewright_operator.core.snapshot import BuildSnapshot, ModelSnapshot

Object = dict[str, Any]
_ENOUGH = 1_000_000
"""Accelerators: more than any replica takes."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the operator would make of one model."""

    name: str
    manifest: Object
    settings: OperatorSettings
    classes: dict[str, AcceleratorClass]
    rungs: tuple[Rung, ...]
    """Of a search: the precisions, in the order in which they are tried."""
    pool: Pool | None
    """What a search may try; None for a ladder."""
    accepted: str
    """On which class of the list, and why not on those before it."""
    children: tuple[Object, ...]


def rehearse(
    documents: list[Object], *, namespace: str, settings: OperatorSettings, classes: Sequence[Object]
) -> list[Rehearsal]:
    """One rehearsal a model. DeterministicError with the reason and sentence that `Accepted` would carry.

    `classes` are those of where the operator is; one of the same name among the documents takes its place.
    """
    known = {item["metadata"]["name"]: _with_room(AcceleratorClass.of(item)) for item in classes}
    for document in documents:
        if document["kind"] == "AcceleratorClass":
            known[document["metadata"]["name"]] = _with_room(AcceleratorClass.of(document))
    models = [document for document in documents if document["kind"] == "OptimizedModel"]
    if not models:
        raise DeterministicError("NoObjects", "no OptimizedModel among the objects given")
    return [_rehearse(model, known, namespace, settings) for model in models]


def _with_room(given: AcceleratorClass) -> AcceleratorClass:
    """A class as a cluster counted it; one from a file without a status is taken to have all the nodes it needs."""
    if any(item.type == HAS_NODES for item in given.status.conditions):
        return given
    assumed = Condition(
        type=HAS_NODES,
        status=ConditionStatus.TRUE,
        reason="Assumed",
        last_transition_time=rfc3339(datetime.now(UTC)),
    )
    status = AcceleratorClassStatus(conditions=[assumed], nodes=1, allocatable=_ENOUGH)
    return given.model_copy(update={"status": status})


def _rehearse(
    model: Object, classes: dict[str, AcceleratorClass], namespace: str, settings: OperatorSettings
) -> Rehearsal:
    manifest = with_defaults(model)
    manifest["metadata"] = {"namespace": namespace, "uid": "", "generation": 1} | manifest["metadata"]
    snapshot = ModelSnapshot(manifest=manifest, settings=settings, classes=classes)
    now = datetime.now(UTC)
    draft = class_choice(acceptance(Draft(snapshot, now)))
    refusal = draft.findings["Accepted"]
    if not refusal.holds:
        raise DeterministicError(refusal.reason, f"{snapshot.name}: {refusal.reason}: {refusal.message}")
    children = [effect.manifest for effect in plan_model(snapshot, now).effects if isinstance(effect, Apply | Create)]
    for build in [child for child in children if child["kind"] == "EngineBuild"]:
        plan = plan_build(BuildSnapshot(manifest=build, settings=settings), now)
        children += [effect.manifest for effect in plan.effects if isinstance(effect, Apply | Create)]
    return Rehearsal(
        snapshot.name, manifest, settings, classes, draft.rungs, draft.pool, refusal.message, tuple(children)
    )
