"""EngineBuilds as models share them: created by whoever needs one first, owned by every model that uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginewright_api.engine_build import EngineBuildSpec
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.meta import API_VERSION
from enginewright_api.names import child_labels

from .draft import Rung
from .effects import Create, Object
from .snapshot import ModelSnapshot

EVIDENCE_MOST = 8


def create_engine_build(snapshot: ModelSnapshot, rung: Rung) -> Create:
    """A new EngineBuild that this model owns."""
    spec = EngineBuildSpec(
        key=rung.key,
        recipe=rung.recipe,
        toolchain=snapshot.settings.toolchain,
        accelerator=rung.accelerator,
        evidence=[rung.evidence],
    )
    return Create(
        {
            "apiVersion": API_VERSION,
            "kind": "EngineBuild",
            "metadata": {
                "name": rung.build_name,
                "namespace": snapshot.namespace,
                "labels": child_labels(name=rung.build_name, component="build", key=rung.key),
                "ownerReferences": [model_owner(snapshot)],
            },
            "spec": spec.wire(),
        }
    )


def use_engine_build(manifest: Object, snapshot: ModelSnapshot, rung: Rung) -> dict[str, Any] | None:
    """Merge patch that makes this model an owner and asks for its evidence; None when all is there.

    Other models do the same with the same lists, so the patch only counts for the resourceVersion that was read.
    """
    patch: dict[str, Any] = {}
    owners = owners_of(manifest)
    if all(owner.get("uid") != snapshot.uid for owner in owners):
        patch["metadata"] = {"ownerReferences": [*owners, model_owner(snapshot)]}
    requests = manifest["spec"]["evidence"]
    wanted = rung.evidence
    known = {EvidenceRequest.model_validate(request).digest for request in requests}
    if wanted.digest not in known and len(requests) < EVIDENCE_MOST:
        patch["spec"] = {"evidence": [*requests, wanted.wire()]}
    return patch or None


def model_owner(snapshot: ModelSnapshot) -> dict[str, Any]:
    """Owner reference to the model."""
    metadata = snapshot.manifest["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "OptimizedModel",
        "name": metadata["name"],
        "uid": snapshot.uid,
    }


def owners_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All owner references."""
    return list(manifest["metadata"].get("ownerReferences", []))
