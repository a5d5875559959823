"""Lets go of what this model no longer uses: EngineBuilds of other recipes, batching files of former pods."""

from __future__ import annotations

from .draft import Draft
from .effects import Delete, Effect, Object, Patch, Reference
from .engine_builds import owners_of
from .engines import pod_template, running_engines
from .render.serving import batching_config_map


def retention(draft: Draft) -> Draft:
    """Artifacts stay in the store: going back to an earlier recipe needs no build."""
    if draft.spec is None or not draft.rungs:
        return draft
    return draft.doing(*_engine_builds(draft), *_batching_files(draft))


def _engine_builds(draft: Draft) -> list[Effect]:
    snapshot = draft.snapshot
    used = {rung.build_name for rung in draft.rungs}
    used |= {engine.build_name for engine in running_engines(snapshot).values()}
    effects: list[Effect] = []
    for manifest in snapshot.owned_builds:
        if manifest["metadata"]["name"] in used or manifest["metadata"].get("deletionTimestamp"):
            continue
        others = [owner for owner in owners_of(manifest) if owner.get("uid") != snapshot.uid]
        effects.append(_let_go(manifest, others))
    return effects


def _let_go(manifest: Object, others: list[Object]) -> Effect:
    reference, metadata = Reference.to(manifest), manifest["metadata"]
    if not others:
        return Delete(reference, metadata.get("uid"))
    patch = {"metadata": {"ownerReferences": others}}
    return Patch(reference, patch, metadata.get("uid"), metadata.get("resourceVersion"))


def _batching_files(draft: Draft) -> list[Effect]:
    assert draft.spec is not None  # noqa: S101 - checked by the caller
    snapshot = draft.snapshot
    used = {batching_config_map(snapshot, draft.spec)["metadata"]["name"]}
    for workload in snapshot.workloads:
        volumes = pod_template(workload)["spec"].get("volumes", [])
        used |= {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    if not draft.settled:
        return []
    return [
        Delete(Reference.to(item), item["metadata"].get("uid"))
        for item in snapshot.config_maps
        if item["metadata"]["name"] not in used
    ]
