"""On which of the classes listed a model runs, and why not on those before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from enginewright_cluster.objects.merge_patch import merge_patch
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import GONE_SECONDS, class_choice
from enginewright_operator.core.conditions import rfc3339
from enginewright_operator.core.draft import Draft
from enginewright_operator.core.effects import Create, Emit, PatchStatus, RequeueAfter
from enginewright_operator.core.plan import plan_model
from enginewright_operator.core.snapshot import ModelSnapshot
from tests.scenarios.models import accelerator_class, gpu_class
from tests.unit.operator.snapshots import NOW, drafted, snapshot

BOTH: dict[str, Any] = {"hardware": {"acceleratorClasses": ["fast", "slow"]}}
TWO_RUNGS = {"quantization": {"format": "INT8"}, "fallbacks": [{"quantization": {"format": "FP16"}}]}
RESERVED = {"placement": {"resources": {"requests": {"cpu": "4"}}}}


def counted(
    name: str, allocatable: int | None = 8, *, ago: float = 0.0, kind: Any = accelerator_class, **spec: Any
) -> dict[str, Any]:
    """A class as it was counted, its nodes there or gone since so many seconds; None: not counted yet."""
    if kind is accelerator_class:
        spec = {"architecture": f"x86_64-{name}", **spec}
    manifest: dict[str, Any] = kind(name, **spec)
    if allocatable is not None:
        condition = {
            "type": "HasNodes",
            "status": "True" if allocatable else "False",
            "reason": "NodesReady" if allocatable else "NoNodes",
            "lastTransitionTime": rfc3339(NOW - timedelta(seconds=ago)),
        }
        manifest["status"] = {"conditions": [condition], "nodes": 1 if allocatable else 0, "allocatable": allocatable}
    return manifest


def classes(fast: int | None = 8, slow: int | None = 8, *, ago: float = 0.0) -> tuple[dict[str, Any], ...]:
    """Both, with so many accelerators each."""
    return counted("fast", fast, ago=ago), counted("slow", slow, ago=ago)


def chosen(found: ModelSnapshot) -> Draft:
    """What the policy decides."""
    return drafted(found, acceptance, class_choice)


def taken(draft: Draft) -> str:
    """Name of the class."""
    return draft.accelerator_class.metadata.name if draft.accelerator_class is not None else ""


def lived(found: ModelSnapshot) -> ModelSnapshot:
    """After one visit: with the status and the EngineBuilds that it wrote."""
    effects = plan_model(found, NOW).effects
    patch = next(effect.patch for effect in effects if isinstance(effect, PatchStatus))
    created = [effect.manifest for effect in effects if isinstance(effect, Create)]
    builds = {item["metadata"]["name"]: {**item, "metadata": {**item["metadata"], "uid": "uid-b"}} for item in created}
    manifest = {**found.manifest, "status": merge_patch(found.manifest.get("status", {}), patch)}
    owned = tuple({**found.builds, **builds}.values())
    return replace(found, manifest=manifest, builds={**found.builds, **builds}, owned_builds=owned)


def later(found: ModelSnapshot, given: tuple[dict[str, Any], ...], **spec: Any) -> ModelSnapshot:
    """With classes counted afresh, and another spec."""
    fresh = snapshot(classes=given)
    return replace(
        found, classes=fresh.classes, manifest={**found.manifest, "spec": {**found.manifest["spec"], **spec}}
    )


@pytest.mark.parametrize(
    ("given", "spec", "name", "words"),
    [
        (classes(), {}, "fast", "class fast of fast, slow"),
        (classes(fast=0), {}, "slow", "class slow of fast, slow; fast: no nodes since 2026-01-01T00:00:00Z"),
        (classes(fast=0, slow=0), {}, "fast", "fast: no nodes since"),
        (classes(fast=3), RESERVED, "slow", "fast: its nodes have 3 accelerators, a replica takes 4"),
        (classes(fast=3, slow=2), RESERVED, "fast", "fast: its nodes have 3 accelerators, a replica takes 4"),
        (classes(slow=None), {}, "fast", "class fast of fast, slow"),
        (
            (counted("fast", formats=["FP16"]), counted("slow")),
            {},
            "slow",
            "fast: optimization: class fast lacks INT8 (it has FP16); choose another format or class",
        ),
        (
            (counted("fast", kind=gpu_class), counted("slow", 0)),
            {"engine": {"backend": "OpenVINO"}},
            "slow",
            "fast: hardware.acceleratorClasses: backend OpenVINO runs on vendor cpu, not on nvidia",
        ),
        # Alone able: whether it has nodes is not asked.
        ((counted("fast", None), counted("slow", formats=["FP16"])), {}, "fast", "class fast of fast, slow"),
    ],
)
def test_the_first_that_can_and_has_room(given: Any, spec: dict[str, Any], name: str, words: str) -> None:
    draft = chosen(snapshot({**BOTH, **spec}, classes=given))
    assert (draft.accepted, taken(draft)) == (True, name)
    assert words in draft.findings["Accepted"].message
    assert {rung.accelerator.accelerator_class for rung in draft.rungs} == {name}


def test_a_claim_needs_nodes_and_no_count() -> None:
    claimed = counted("fast", 8)
    claimed["spec"] |= {"resourceClaimTemplate": "claim"}
    del claimed["spec"]["resource"]
    claimed["status"]["allocatable"] = 0
    assert taken(chosen(snapshot(BOTH, classes=(claimed, counted("slow"))))) == "fast"


def test_what_is_not_counted_yet_is_waited_for() -> None:
    found = snapshot(BOTH, classes=classes(fast=None))
    finding = chosen(found).findings["Accepted"]
    assert (finding.status, finding.reason) == ("Unknown", "Pending")
    assert finding.message == "waiting until the nodes of class fast are counted"
    waiting = lived(found)
    states = {item.type: item.status for item in waiting.status().conditions}
    assert (states["Stalled"], states["Reconciling"]) == ("False", "True")
    assert not waiting.builds
    assert taken(chosen(later(waiting, classes(fast=0)))) == "slow"


def test_one_class_is_taken_whatever_was_counted() -> None:
    for allocatable in (None, 0, 8):
        alone = {"hardware": {"acceleratorClasses": ["fast"]}}
        draft = chosen(snapshot(alone, classes=(counted("fast", allocatable),)))
        assert draft.findings["Accepted"].message == "class fast"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "slow"),
        ({"replicas": 3}, "slow"),
        ({"quality": {"maxDrop": 0.2}}, "slow"),
        ({"rollout": {"maxSurge": 2}}, "slow"),
        ({"batching": {"maxQueueDelayMicroseconds": 500}}, "slow"),
        ({"optimization": TWO_RUNGS}, "slow"),
        ({"engine": {"limits": {"maxInputTokens": 64}}}, "fast"),
        ({"hardware": {"acceleratorClasses": ["fast"]}}, "fast"),
        ({"hardware": {"acceleratorClasses": ["slow", "fast"]}}, "slow"),
        ({"hardware": {"acceleratorClasses": ["fast", "slow", "third"]}}, "fast"),
    ],
)
def test_what_was_taken_stays_until_recipe_or_list_change(change: dict[str, Any], name: str) -> None:
    before = lived(snapshot(BOTH, classes=classes(fast=0)))
    after = chosen(later(before, (*classes(), counted("third")), **change))
    assert taken(after) == name
    if not change:
        assert after.findings["Accepted"].message == (
            "class slow of fast, slow; fast: has room by now, and takes over when the recipe or the list changes"
        )


def test_a_list_in_another_order_counts() -> None:
    before = lived(snapshot(BOTH, classes=classes()))
    assert taken(chosen(later(before, classes(), hardware={"acceleratorClasses": ["slow", "fast"]}))) == "slow"


@pytest.mark.parametrize(
    ("ago", "replicas", "slow", "name"),
    [
        (GONE_SECONDS - 1, 1, 8, "fast"),
        (GONE_SECONDS, 1, 8, "slow"),
        (GONE_SECONDS, 0, 8, "fast"),
        (GONE_SECONDS, 1, 0, "fast"),
        (GONE_SECONDS, 1, None, "fast"),
        (-3600, 1, 8, "fast"),
    ],
    ids=["not yet", "gone", "nothing wanted", "nowhere to go", "others not counted", "a clock set back"],
)
def test_a_class_is_left_when_its_nodes_stay_away(ago: float, replicas: int, slow: int | None, name: str) -> None:
    before = lived(snapshot({**BOTH, "replicas": replicas}, classes=classes()))
    after = chosen(later(before, (counted("fast", 0, ago=ago), counted("slow", slow))))
    assert taken(after) == name
    told = [effect.message for effect in after.effects if isinstance(effect, Emit)]
    since = rfc3339(NOW - timedelta(seconds=ago))
    assert told == ([f"from class fast to slow: no nodes since {since}"] if name == "slow" else [])
    again = [effect.seconds for effect in after.effects if isinstance(effect, RequeueAfter)]
    waits = replicas > 0 and ago < GONE_SECONDS
    assert again == ([GONE_SECONDS - max(ago, 0)] if waits else [])


def test_a_class_that_can_no_longer_run_the_recipe_is_left_at_once() -> None:
    before = lived(snapshot(BOTH, classes=classes()))
    assert taken(chosen(later(before, (counted("fast", formats=["FP16"]), counted("slow"))))) == "slow"


def test_a_choice_that_was_lost_is_made_good_by_the_builds_under_way() -> None:
    before = lived(snapshot(BOTH, classes=classes(fast=0)))
    status = {**before.manifest["status"]}
    assert status.pop("classChoice") == {"taken": "slow", "listed": ["fast", "slow"], "tooSmall": []}
    forgetful = replace(before, manifest={**before.manifest, "status": status})
    assert taken(chosen(later(forgetful, classes()))) == "slow"


def failed(found: ModelSnapshot, *names: str, reason: str = "WillNotFit") -> ModelSnapshot:
    """With these EngineBuilds failed for good."""
    failure = {"class": "Deterministic", "reason": reason, "message": "too large", "retryable": False, "stage": "fetch"}
    status = {"phase": "Failed", "failure": failure}
    builds = {name: {**item, "status": status} if name in names else item for name, item in found.builds.items()}
    return replace(found, builds=builds, owned_builds=tuple(builds.values()))


def test_a_class_into_which_no_rung_fits_is_left_and_not_tried_again() -> None:
    found = lived(snapshot({**BOTH, "optimization": TWO_RUNGS}, classes=classes()))
    (first,) = found.builds
    found = lived(failed(found, first))
    assert taken(chosen(found)) == "fast", "the fallback is smaller"
    found = failed(found, *found.builds)
    draft = chosen(found)
    assert taken(draft) == "slow"
    assert "; fast: too small: too large" in draft.findings["Accepted"].message
    moved = lived(found)
    moved = replace(moved, builds={name: item for name, item in moved.builds.items() if name not in found.builds})
    assert len(moved.builds) == 1
    assert taken(chosen(moved)) == "slow", "though the builds that failed are gone"
    assert "; fast: too small" in chosen(moved).findings["Accepted"].message
    assert taken(chosen(later(moved, classes(slow=0, ago=GONE_SECONDS)))) == "slow", "nowhere to go"
    moved = lived(failed(moved, *moved.builds))
    assert taken(chosen(moved)) == "slow", "the fallback is smaller"
    nowhere = lived(failed(moved, *moved.builds))
    for draft in (chosen(failed(moved, *moved.builds)), chosen(nowhere)):
        finding = draft.findings["Accepted"]
        assert (draft.accepted, finding.reason) == (False, "WillNotFit")
        assert "class fast: its builds ended with WillNotFit; class slow: too large" in finding.message
    assert len(nowhere.builds) == 2, "nothing is begun anew"


def test_other_failures_say_nothing_about_the_class() -> None:
    found = lived(snapshot(BOTH, classes=classes()))
    assert taken(chosen(failed(found, *found.builds, reason="UnsupportedOperator"))) == "fast"


def test_a_search_leaves_a_class_when_it_has_ended_without_anything_that_fits() -> None:
    found = lived(snapshot({**BOTH, "optimization": {"profile": "Latency"}}, classes=classes()))
    for _ in range(24):
        found = lived(failed(found, *found.builds))
        if taken(chosen(found)) == "slow":
            break
    assert taken(chosen(found)) == "slow"
    assert len(found.builds) >= 1


def test_where_no_class_will_do_each_says_why() -> None:
    given = (counted("fast", formats=["FP16"]), counted("slow", kind=gpu_class))
    finding = chosen(snapshot({**BOTH, "engine": {"backend": "OpenVINO"}}, classes=given)).findings["Accepted"]
    assert (finding.status, finding.reason) == ("False", "FormatNotSupported")
    assert "class fast: optimization: class fast lacks INT8" in finding.message
    assert "class slow: hardware.acceleratorClasses: backend OpenVINO runs on vendor cpu" in finding.message
    spec = {**BOTH, "engine": {"limits": {"maxOutputTokens": 64}}}
    same = chosen(snapshot(spec, classes=classes())).findings["Accepted"]
    assert same.message.count("engine.limits.maxOutputTokens") == 1


SPANNING: dict[str, Any] = {
    "task": "TextGeneration",
    "optimization": {"quantization": {"format": "FP16"}},
    "hardware": {"acceleratorClasses": ["fast", "slow"], "acceleratorsPerReplica": 16},
    "parallelism": {"tensor": 8, "pipeline": 2},
}


def test_a_class_whose_replicas_need_no_group_is_taken_where_groups_are_not_installed() -> None:
    fast = counted("fast", 16, kind=gpu_class, acceleratorsPerNode=8)
    slow = counted("slow", 16, kind=gpu_class, acceleratorsPerNode=16)
    assert taken(chosen(snapshot(SPANNING, classes=(fast, slow)))) == "fast"
    draft = chosen(snapshot(SPANNING, classes=(fast, slow), groups=None))
    assert taken(draft) == "slow"
    assert "by a LeaderWorkerSet, which this cluster does not know" in draft.findings["Accepted"].message
    neither = chosen(snapshot(SPANNING, classes=(fast, {**fast, "metadata": {"name": "slow"}}), groups=None))
    assert neither.findings["Accepted"].reason == "LeaderWorkerSetNotInstalled"
    assert [effect for effect in neither.effects if isinstance(effect, RequeueAfter)], "it may come"
