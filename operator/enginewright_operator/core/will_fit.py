"""Does what a rung makes fit into the memory of its class? Asked before its build, once the source's sizes are known.

The operator has no access to checkpoints. The first builder that fetches one tells its sizes, and from then on they
answer for every other recipe, limit and class of the same source, by the estimate that the builder itself uses.
"""

from __future__ import annotations

from pydantic import ValidationError

from enginewright_api.engine_build import BuildPhase
from enginewright_api.errors import DeterministicError, FailureClass
from enginewright_api.footprint import check_will_fit, footprint
from enginewright_api.geometry import CheckpointSizes
from enginewright_api.outcome import Failure
from enginewright_api.source import Source

from .draft import Rung
from .effects import Object
from .reading import mapping
from .snapshot import ModelSnapshot

WILL_NOT_FIT = "WillNotFit"
"""Reason of a build that found the memory of its class too small for what it was to make."""


def misfit(snapshot: ModelSnapshot, rung: Rung) -> Failure | None:
    """What its build would end with; None where it fits, where the sizes are not known, and where a build knows better.

    That is one which is there and has not failed, for a class of no more memory: an estimate takes nothing away.
    """
    build = snapshot.builds.get(rung.build_name)
    if build is not None and not _has_failed(build) and memory_gib(build) <= rung.accelerator.memory_gib:
        return None
    sizes = known_sizes(snapshot, rung.recipe.source)
    if sizes is None:
        return None
    drafts = rung.recipe.draft_source
    draft = known_sizes(snapshot, drafts) if drafts is not None else None
    try:
        # Without the draft's sizes the model alone is counted, which is less.
        found = footprint(sizes.geometry, rung.recipe, draft.geometry if draft is not None else None)
        check_will_fit(found, rung.accelerator)
    except DeterministicError as error:
        return Failure(
            failure_class=FailureClass.DETERMINISTIC, reason=error.reason, message=error.message, retryable=False
        )
    return None


def known_sizes(snapshot: ModelSnapshot, source: Source) -> CheckpointSizes | None:
    """As a build of this model told them that has fetched this very source, to build from or to draft with."""
    wanted = source.wire()
    for build in snapshot.owned_builds:
        own = mapping(build, "spec", "recipe"), "checkpoint"
        drafts = mapping(build, "spec", "recipe", "speculativeDecoding", "draft"), "draftCheckpoint"
        for block, field in (own, drafts):
            told = mapping(build, "status", field)
            if not told or block.get("source") != wanted:
                continue
            try:
                return CheckpointSizes.model_validate(told)
            except ValidationError:
                continue
    return None


def memory_gib(build: Object | None) -> float:
    """Memory of the class that a build was made for; 0 where it was not given."""
    found = mapping(build, "spec", "accelerator").get("memoryGiB", 0.0)
    return float(found) if isinstance(found, int | float) else 0.0


def _has_failed(build: Object) -> bool:
    return mapping(build, "status").get("phase") == BuildPhase.FAILED
