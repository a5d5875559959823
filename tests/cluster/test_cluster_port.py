"""One contract for the three adapters: what a program may count on, whichever cluster it talks to."""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    OPTIMIZED_MODEL,
    Cluster,
    ConflictError,
    EventType,
    InvalidError,
    Kind,
    NotFoundError,
    Object,
    Ref,
    WatchEvent,
)
from tests.objects.table import WRONG, build, model


@dataclass(frozen=True)
class Place:
    """A cluster and a namespace of it that nobody else uses."""

    cluster: Cluster
    namespace: str

    def ref(self, kind: Kind, name: str) -> Ref:
        return Ref(kind, name, self.namespace)

    def config(self, name: str, data: dict[str, str] | None = None, **metadata: Any) -> Object:
        return self._item("v1", "ConfigMap", name, metadata) | {"data": data or {"a": "1"}}

    def model(self, name: str, **spec: Any) -> Object:
        return self.here(model(name, **spec))

    def here(self, item: Object) -> Object:
        item = copy.deepcopy(item)
        item["metadata"]["namespace"] = self.namespace
        return item

    def deployment(self, name: str, *, env: dict[str, str] | None = None, **spec: Any) -> Object:
        container = {"name": "server", "image": "one", "env": [{"name": k, "value": v} for k, v in (env or {}).items()]}
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
        # Nothing here is to run: no node has this label.
        template["spec"]["nodeSelector"] = {"nowhere": "yes"}
        fields = {"selector": {"matchLabels": {"app": name}}, "template": template} | spec
        return self._item("apps/v1", "Deployment", name, {}) | {"spec": fields}

    def job(self, name: str, **pod: Any) -> Object:
        spec = {"restartPolicy": "Never", "nodeSelector": {"nowhere": "yes"}}
        spec |= {"containers": [{"name": "c", "image": "one"}]} | pod
        return self._item("batch/v1", "Job", name, {}) | {"spec": {"backoffLimit": 0, "template": {"spec": spec}}}

    def _item(self, api: str, kind: str, name: str, metadata: dict[str, Any]) -> Object:
        return {
            "apiVersion": api,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace, **metadata},
        }


@pytest.fixture(scope="module")
def kube_with_crds(kube_crds: Any) -> Any:
    return kube_crds


@pytest.fixture(params=["fake", "local", "kubernetes"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "fake":
        yield Place(FakeCluster(), "here")
    elif request.param == "local":
        from enginewright_cluster.local import LocalCluster

        cluster = LocalCluster(tmp_path / "state")
        yield Place(cluster, "here")
        await cluster.close()
    else:
        from enginewright_cluster.kubernetes import KubernetesCluster

        kube = request.getfixturevalue("kube_with_crds")
        namespace = f"port-{uuid.uuid4().hex[:8]}"
        kube.kubectl("create", "namespace", namespace)
        real = await KubernetesCluster.from_kubeconfig(kube.kubeconfig)
        yield Place(real, namespace)
        await real.close()
        kube.kubectl("delete", "namespace", namespace, "--wait=false")


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - the cluster tells nobody when
            await asyncio.sleep(0.05)


async def gone(place: Place, kind: Kind, name: str) -> bool:
    try:
        await place.cluster.get(place.ref(kind, name))
    except NotFoundError:
        return True
    return False


class Watching:
    """A watch that runs beside the test."""

    def __init__(self, place: Place, kind: Kind, labels: dict[str, str] | None = None) -> None:
        self._events = place.cluster.watch(kind, namespace=place.namespace, labels=labels)

    async def next(self) -> tuple[str, str]:
        event = await self.next_event()
        return event.type.value, event.object["metadata"]["name"]

    async def next_event(self) -> WatchEvent:
        async with asyncio.timeout(10):
            return await anext(self._events)

    async def until(self, kind: EventType, name: str) -> WatchEvent:
        while True:
            event = await self.next_event()
            if event.type is kind and event.object["metadata"]["name"] == name:
                return event


# Reading and identity


async def test_missing_object_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        await place.cluster.get(place.ref(CONFIG_MAP, "nothing"))


async def test_created_object_has_identity(place: Place) -> None:
    created = await place.cluster.create(place.config("one"))
    assert created["metadata"]["uid"]
    assert created["metadata"]["resourceVersion"]
    assert created["metadata"]["creationTimestamp"].endswith("Z")
    assert await place.cluster.get(place.ref(CONFIG_MAP, "one")) == created


async def test_second_create_conflicts(place: Place) -> None:
    await place.cluster.create(place.config("one"))
    with pytest.raises(ConflictError, match=r"one.*already exists"):
        await place.cluster.create(place.config("one"))


async def test_generated_names_differ(place: Place) -> None:
    manifest = place.config("x")
    manifest["metadata"] = {"generateName": "part-", "namespace": place.namespace}
    names = {(await place.cluster.create(manifest))["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("part-") for name in names)


async def test_list_filters_by_label_and_namespace(place: Place) -> None:
    await place.cluster.apply(place.config("a", labels={"team": "x"}))
    await place.cluster.apply(place.config("b", labels={"team": "y"}))
    listed = await place.cluster.list(CONFIG_MAP, namespace=place.namespace, labels={"team": "x"})
    assert [item["metadata"]["name"] for item in listed] == ["a"]
    assert listed[0]["kind"] == "ConfigMap"
    assert listed[0]["apiVersion"] == "v1"
    elsewhere = await place.cluster.list(CONFIG_MAP, namespace="nowhere-at-all", labels={"team": "x"})
    assert list(elsewhere) == []
    everywhere = await place.cluster.list(CONFIG_MAP, labels={"team": "y"})
    assert "b" in [item["metadata"]["name"] for item in everywhere]


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "a" * 254, "sp ace"])
async def test_bad_names_are_refused(place: Place, name: str) -> None:
    with pytest.raises(InvalidError, match="name"):
        await place.cluster.create(place.config(name))


# Apply


async def test_one_name_is_listed_alone(place: Place) -> None:
    for name in ("one", "one-more"):
        await place.cluster.apply(place.config(name, labels={"x": "1"}))
        await place.cluster.apply(place.model(name))
    for kind, labels in ((CONFIG_MAP, {"x": "1"}), (OPTIMIZED_MODEL, None)):
        found = await place.cluster.list(kind, namespace=place.namespace, labels=labels, name="one")
        assert [item["metadata"]["name"] for item in found] == ["one"]
    assert not await place.cluster.list(CONFIG_MAP, namespace=place.namespace, labels={"x": "2"}, name="one")
    assert not await place.cluster.list(OPTIMIZED_MODEL, namespace=place.namespace, name="two")


async def test_apply_creates_then_merges_then_leaves_alone(place: Place) -> None:
    first = await place.cluster.apply(place.config("one", {"a": "1"}))
    second = await place.cluster.apply(place.config("one", {"a": "2"}))
    third = await place.cluster.apply(place.config("one", {"a": "2"}))
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert second["data"] == {"a": "2"}
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    assert third["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_field_left_out_by_its_only_owner_goes_away(place: Place) -> None:
    await place.cluster.apply(place.config("one", {"a": "1", "b": "2"}, labels={"x": "1", "y": "2"}))
    merged = await place.cluster.apply(place.config("one", {"a": "1"}, labels={"y": "2"}))
    assert merged["data"] == {"a": "1"}
    assert merged["metadata"]["labels"] == {"y": "2"}


async def test_fields_of_another_manager_stay(place: Place) -> None:
    await place.cluster.apply(place.config("one", {"ours": "1"}), field_manager="us")
    await place.cluster.apply(place.config("one", {"theirs": "2"}), field_manager="them")
    merged = await place.cluster.apply(place.config("one", {"ours": "3"}), field_manager="us")
    assert merged["data"] == {"ours": "3", "theirs": "2"}


async def test_unforced_apply_to_anothers_field_conflicts_and_names_it(place: Place) -> None:
    await place.cluster.apply(place.config("one", {"a": "1"}), field_manager="us")
    with pytest.raises(ConflictError, match=r"(?s)us.*data\.a|data\.a.*us"):
        await place.cluster.apply(place.config("one", {"a": "2"}), field_manager="them", force=False)
    shared = await place.cluster.apply(place.config("one", {"a": "1"}), field_manager="them", force=False)
    assert shared["data"] == {"a": "1"}


async def test_forced_apply_takes_the_field(place: Place) -> None:
    await place.cluster.apply(place.config("one", {"a": "1", "b": "1"}), field_manager="us")
    await place.cluster.apply(place.config("one", {"a": "2"}), field_manager="them", force=True)
    merged = await place.cluster.apply(place.config("one", {"b": "1"}), field_manager="us")
    assert merged["data"] == {"a": "2", "b": "1"}


async def test_shared_field_goes_with_its_last_owner(place: Place) -> None:
    for manager in ("us", "them"):
        await place.cluster.apply(place.config("one", {"a": "1", manager: "1"}), field_manager=manager)
    still = await place.cluster.apply(place.config("one", {"us": "1"}), field_manager="us")
    assert still["data"] == {"a": "1", "us": "1", "them": "1"}
    after = await place.cluster.apply(place.config("one", {"them": "1"}), field_manager="them")
    assert after["data"] == {"us": "1", "them": "1"}


async def test_environment_merges_by_name(place: Place) -> None:
    await place.cluster.apply(place.deployment("d", env={"A": "1", "B": "2"}), field_manager="us")
    await place.cluster.apply(place.deployment("d", env={"C": "3"}), field_manager="them")
    merged = await place.cluster.apply(place.deployment("d", env={"A": "9"}), field_manager="us")
    (container,) = merged["spec"]["template"]["spec"]["containers"]
    assert {item["name"]: item["value"] for item in container["env"]} == {"A": "9", "C": "3"}


async def test_empty_list_may_fill_and_empty_again(place: Place) -> None:
    for env in ({}, {"A": "1"}, {}, {"B": "2"}):
        applied = await place.cluster.apply(place.deployment("d", env=env))
        (container,) = applied["spec"]["template"]["spec"]["containers"]
        assert {item["name"]: item["value"] for item in container.get("env") or []} == env


async def test_whole_container_goes_when_its_owner_drops_it(place: Place) -> None:
    two = place.deployment("d")
    two["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "two"})
    await place.cluster.apply(two)
    merged = await place.cluster.apply(place.deployment("d"))
    assert [item["name"] for item in merged["spec"]["template"]["spec"]["containers"]] == ["server"]


async def test_stated_uid_must_match(place: Place) -> None:
    await place.cluster.apply(place.config("one"))
    other = "11111111-2222-4333-8444-555555555555"
    with pytest.raises(ConflictError):
        await place.cluster.apply(place.config("one", uid=other))
    with pytest.raises(ConflictError):
        await place.cluster.apply(place.config("absent", uid=other))


async def test_apply_with_old_resource_version_conflicts(place: Place) -> None:
    first = await place.cluster.apply(place.config("one", {"a": "1"}))
    await place.cluster.apply(place.config("one", {"a": "2"}))
    with pytest.raises(ConflictError):
        stale = place.config("one", {"a": "3"}, resourceVersion=first["metadata"]["resourceVersion"])
        await place.cluster.apply(stale)


# Our kinds


async def test_defaults_are_filled_in(place: Place) -> None:
    created = await place.cluster.apply(place.model("m"))
    assert created["spec"]["replicas"] == 1
    assert created["spec"]["engine"]["backend"] == "Auto"
    assert created["status"] == {"observedGeneration": -1, "replicas": 0, "selector": ""}


async def test_defaults_go_with_the_block_that_is_left_out(place: Place) -> None:
    with_draft = place.model("m", task="TextGeneration", runtime={"speculativeDecoding": {"method": "NGram"}})
    created = await place.cluster.apply(with_draft)
    assert created["spec"]["runtime"]["speculativeDecoding"] == {"method": "NGram", "draftTokens": 4}
    without = await place.cluster.apply(place.model("m", task="TextGeneration"))
    assert "speculativeDecoding" not in without["spec"].get("runtime", {})


@pytest.mark.parametrize("wrong", WRONG[::8], ids=lambda wrong: wrong.id)
async def test_wrong_objects_are_refused_naming_the_field(place: Place, wrong: Any) -> None:
    with pytest.raises(InvalidError) as refused:
        await place.cluster.apply(place.here(wrong.object))
    for word in wrong.says:
        assert word in refused.value.message


async def test_engine_builds_do_not_change(place: Place) -> None:
    item = place.here(build())
    await place.cluster.apply(item)
    item["spec"]["recipe"]["limits"]["maxBatchSize"] = 8
    with pytest.raises(InvalidError, match="immutable"):
        await place.cluster.apply(item)


async def test_generation_counts_spec_changes_only(place: Place) -> None:
    ref = place.ref(OPTIMIZED_MODEL, "m")

    async def generation() -> int:
        return int((await place.cluster.get(ref))["metadata"]["generation"])

    await place.cluster.apply(place.model("m"))
    assert await generation() == 1
    await place.cluster.patch_status(ref, {"observedGeneration": 1})
    await place.cluster.patch(ref, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}})
    await place.cluster.apply(place.model("m"))
    assert await generation() == 1
    await place.cluster.scale(ref, 2)
    assert await generation() == 2
    await place.cluster.apply(place.model("m", task="Classification"))
    assert await generation() == 3


# Status


async def test_status_and_spec_are_written_apart(place: Place) -> None:
    ref = place.ref(OPTIMIZED_MODEL, "m")
    await place.cluster.apply(place.model("m") | {"status": {"replicas": 7}})
    assert (await place.cluster.get(ref))["status"]["replicas"] == 0
    await place.cluster.patch_status(ref, {"observedGeneration": 1, "replicas": 2})
    await place.cluster.patch(ref, {"spec": {"replicas": 3}, "status": {"replicas": 9}})
    applied = await place.cluster.apply(place.model("m", replicas=4) | {"status": {"replicas": 7}})
    assert applied["status"] == {"observedGeneration": 1, "replicas": 2, "selector": ""}
    assert applied["spec"]["replicas"] == 4


async def test_status_merges_and_null_removes(place: Place) -> None:
    ref = place.ref(OPTIMIZED_MODEL, "m")
    await place.cluster.apply(place.model("m"))
    await place.cluster.patch_status(ref, {"replicas": 2, "selector": "a=b", "endpoints": {"http": "here"}})
    patched = await place.cluster.patch_status(ref, {"endpoints": None, "selector": None, "observedGeneration": 1})
    assert patched["status"] == {"replicas": 2, "observedGeneration": 1, "selector": ""}


async def test_same_status_again_writes_nothing(place: Place) -> None:
    ref = place.ref(OPTIMIZED_MODEL, "m")
    await place.cluster.apply(place.model("m"))
    first = await place.cluster.patch_status(ref, {"replicas": 2})
    second = await place.cluster.patch_status(ref, {"replicas": 2})
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_status_of_wrong_type_is_refused(place: Place) -> None:
    await place.cluster.apply(place.model("m"))
    with pytest.raises(InvalidError, match="replicas"):
        await place.cluster.patch_status(place.ref(OPTIMIZED_MODEL, "m"), {"replicas": "many"})


async def test_status_of_nothing_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError):
        await place.cluster.patch_status(place.ref(OPTIMIZED_MODEL, "m"), {"replicas": 1})


# Preconditions


async def test_another_uid_conflicts(place: Place) -> None:
    ref, other = place.ref(OPTIMIZED_MODEL, "m"), "11111111-2222-4333-8444-555555555555"
    created = await place.cluster.apply(place.model("m"))
    uid = created["metadata"]["uid"]
    with pytest.raises(ConflictError):
        await place.cluster.patch_status(ref, {"replicas": 1}, uid=other)
    with pytest.raises(ConflictError):
        await place.cluster.patch(ref, {"metadata": {"labels": {"a": "b"}}}, uid=other)
    with pytest.raises(ConflictError):
        await place.cluster.delete(ref, uid=other)
    unchanged = await place.cluster.get(ref)
    assert unchanged["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    await place.cluster.patch_status(ref, {"replicas": 1}, uid=uid)
    await place.cluster.patch(ref, {"metadata": {"labels": {"a": "b"}}}, uid=uid)
    await place.cluster.delete(ref, uid=uid)
    assert await gone(place, OPTIMIZED_MODEL, "m")


# Patch, scale


async def test_merge_patch_replaces_lists_and_removes_nulls(place: Place) -> None:
    ref = place.ref(CONFIG_MAP, "one")
    await place.cluster.apply(place.config("one", {"a": "1", "b": "2"}))
    patched = await place.cluster.patch(ref, {"data": {"a": None, "c": "3"}})
    assert patched["data"] == {"b": "2", "c": "3"}


async def test_patch_of_nothing_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError):
        await place.cluster.patch(place.ref(CONFIG_MAP, "absent"), {"data": {"a": "1"}})


@pytest.mark.parametrize("kind", [OPTIMIZED_MODEL, DEPLOYMENT], ids=lambda kind: kind.kind)
async def test_scale_writes_replicas(place: Place, kind: Kind) -> None:
    await place.cluster.apply(place.model("m") if kind == OPTIMIZED_MODEL else place.deployment("m"))
    await place.cluster.scale(place.ref(kind, "m"), 3)
    assert (await place.cluster.get(place.ref(kind, "m")))["spec"]["replicas"] == 3


async def test_scaled_replicas_survive_an_apply_that_leaves_them_out(place: Place) -> None:
    await place.cluster.apply(place.deployment("d"))
    await place.cluster.scale(place.ref(DEPLOYMENT, "d"), 3)
    applied = await place.cluster.apply(place.deployment("d", env={"A": "1"}))
    assert applied["spec"]["replicas"] == 3


async def test_unforced_apply_of_scaled_replicas_conflicts(place: Place) -> None:
    await place.cluster.apply(place.deployment("d", replicas=1))
    await place.cluster.scale(place.ref(DEPLOYMENT, "d"), 3)
    with pytest.raises(ConflictError, match="replicas"):
        await place.cluster.apply(place.deployment("d", replicas=1), force=False)


async def test_scale_to_less_than_nothing_is_refused(place: Place) -> None:
    await place.cluster.apply(place.deployment("d"))
    with pytest.raises(InvalidError):
        await place.cluster.scale(place.ref(DEPLOYMENT, "d"), -1)


async def test_job_template_is_immutable(place: Place) -> None:
    await place.cluster.apply(place.job("j"))
    with pytest.raises(InvalidError, match="immutable"):
        await place.cluster.apply(place.job("j", containers=[{"name": "c", "image": "two"}]))
    again = await place.cluster.apply(place.job("j"))
    assert again["metadata"]["generation"] == 1
    assert JOB.kind == again["kind"]


# Deletion


async def test_deleting_twice_is_fine(place: Place) -> None:
    await place.cluster.apply(place.config("one"))
    await place.cluster.delete(place.ref(CONFIG_MAP, "one"))
    await place.cluster.delete(place.ref(CONFIG_MAP, "one"))
    assert await gone(place, CONFIG_MAP, "one")


async def test_finalizer_holds_the_object(place: Place) -> None:
    ref = place.ref(CONFIG_MAP, "one")
    await place.cluster.apply(place.config("one", finalizers=["enginewright.io/cleanup"]))
    await place.cluster.delete(ref)
    held = await place.cluster.get(ref)
    assert held["metadata"]["deletionTimestamp"]
    await place.cluster.patch(ref, {"metadata": {"finalizers": None}})
    assert await gone(place, CONFIG_MAP, "one")


def owner_of(item: Object) -> Object:
    fields = {"apiVersion": item["apiVersion"], "kind": item["kind"]}
    return fields | {"name": item["metadata"]["name"], "uid": item["metadata"]["uid"]}


async def test_owned_objects_go_with_their_last_owner(place: Place) -> None:
    first = await place.cluster.apply(place.config("first"))
    second = await place.cluster.apply(place.config("second"))
    await place.cluster.apply(place.config("single", ownerReferences=[owner_of(first)]))
    await place.cluster.apply(place.config("double", ownerReferences=[owner_of(first), owner_of(second)]))
    await place.cluster.delete(place.ref(CONFIG_MAP, "first"))
    await eventually(lambda: gone(place, CONFIG_MAP, "single"))
    assert not await gone(place, CONFIG_MAP, "double")
    await place.cluster.delete(place.ref(CONFIG_MAP, "second"))
    await eventually(lambda: gone(place, CONFIG_MAP, "double"))


async def test_object_of_a_vanished_owner_is_collected(place: Place) -> None:
    owner = await place.cluster.apply(place.config("owner"))
    await place.cluster.delete(place.ref(CONFIG_MAP, "owner"))
    await eventually(lambda: gone(place, CONFIG_MAP, "owner"))
    await place.cluster.apply(place.config("late", ownerReferences=[owner_of(owner)]))
    await eventually(lambda: gone(place, CONFIG_MAP, "late"))


# Watch


async def test_watch_begins_with_the_present_then_follows(place: Place) -> None:
    await place.cluster.apply(place.config("a", labels={"w": "1"}))
    watching = Watching(place, CONFIG_MAP, {"w": "1"})
    assert await watching.next() == ("ADDED", "a")
    await place.cluster.apply(place.config("b", labels={"w": "1"}))
    assert await watching.next() == ("ADDED", "b")
    await place.cluster.apply(place.config("b", {"a": "2"}, labels={"w": "1"}))
    changed = await watching.next_event()
    assert (changed.type, changed.object["data"]) == (EventType.MODIFIED, {"a": "2"})
    assert changed.object["kind"] == "ConfigMap"
    await place.cluster.delete(place.ref(CONFIG_MAP, "a"))
    assert await watching.next() == ("DELETED", "a")


async def test_object_that_leaves_the_selector_is_deleted_to_its_watcher(place: Place) -> None:
    await place.cluster.apply(place.config("a", labels={"w": "1"}))
    watching = Watching(place, CONFIG_MAP, {"w": "1"})
    assert await watching.next() == ("ADDED", "a")
    await place.cluster.patch(place.ref(CONFIG_MAP, "a"), {"metadata": {"labels": {"w": "2"}}})
    assert await watching.next() == ("DELETED", "a")
    await place.cluster.patch(place.ref(CONFIG_MAP, "a"), {"metadata": {"labels": {"w": "1"}}})
    assert await watching.next() == ("ADDED", "a")


async def test_writes_that_change_nothing_are_not_watched(place: Place) -> None:
    await place.cluster.apply(place.config("a", labels={"w": "1"}))
    watching = Watching(place, CONFIG_MAP, {"w": "1"})
    await watching.next()
    await place.cluster.apply(place.config("a", labels={"w": "1"}))
    await place.cluster.apply(place.config("z", labels={"w": "1"}))
    assert await watching.next() == ("ADDED", "z")


async def test_watched_model_shows_status_writes(place: Place) -> None:
    await place.cluster.apply(place.model("m"))
    watching = Watching(place, OPTIMIZED_MODEL)
    assert await watching.next() == ("ADDED", "m")
    await place.cluster.patch_status(place.ref(OPTIMIZED_MODEL, "m"), {"replicas": 5})
    assert (await watching.next_event()).object["status"]["replicas"] == 5


async def test_objects_handed_out_are_the_callers_own(place: Place) -> None:
    created = await place.cluster.apply(place.config("one", {"a": "1"}))
    created["data"]["a"] = "spoilt"
    (await place.cluster.list(CONFIG_MAP, namespace=place.namespace, labels={}))[0]["data"] = {}
    assert (await place.cluster.get(place.ref(CONFIG_MAP, "one")))["data"] == {"a": "1"}
    assert json.dumps(created)
