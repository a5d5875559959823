"""The SQLite cluster: several processes, files, faults of the disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enginewright_cluster import sqlite_rows
from enginewright_cluster.local import DATABASE, LocalCluster
from enginewright_cluster.port import CONFIG_MAP, ConflictError, EventType, Object, Ref, UnavailableError

WRITER = """
import asyncio, pathlib, sys
from enginewright_cluster.local import LocalCluster
from enginewright_cluster.port import CONFIG_MAP, ConflictError, Ref

async def main(folder, name, count):
    cluster = LocalCluster(pathlib.Path(folder))
    ref = Ref(CONFIG_MAP, "shared", "test")
    for number in range(count):
        await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": f"{name}-{number}", "namespace": "test"}, "data": {"by": name}})
        while True:
            live = await cluster.get(ref)
            version = live["metadata"]["resourceVersion"]
            total = str(int(live["data"]["total"]) + 1)
            try:
                await cluster.patch(ref, {"metadata": {"resourceVersion": version}, "data": {"total": total}})
                break
            except ConflictError:
                continue
    await cluster.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def config(name: str, **data: str) -> Object:
    metadata = {"name": name, "namespace": "test"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    cluster = LocalCluster(tmp_path / "state")
    yield cluster
    await cluster.close()


async def write_elsewhere(folder: Path, name: str, count: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(folder), name, str(count))


async def test_processes_write_at_once_and_lose_nothing(local: LocalCluster) -> None:
    await local.apply(config("shared", total="0"))
    writers = [await write_elsewhere(local.state_dir, name, 40) for name in ("a", "b", "c")]
    assert [await writer.wait() for writer in writers] == [0, 0, 0]
    items = await local.list(CONFIG_MAP, namespace="test")
    assert len(items) == 121
    versions = [int(item["metadata"]["resourceVersion"]) for item in items]
    assert len(set(versions)) == len(versions)
    assert (await local.get(Ref(CONFIG_MAP, "shared", "test")))["data"] == {"total": "120"}


async def test_watch_hears_of_other_processes(local: LocalCluster) -> None:
    await local.apply(config("shared", total="0"))
    events = local.watch(CONFIG_MAP, namespace="test")
    first = await anext(events)
    assert first.type is EventType.ADDED
    writer = await write_elsewhere(local.state_dir, "other", 5)
    seen: set[str] = set()
    async with asyncio.timeout(20):
        while len(seen) < 5:
            event = await anext(events)
            if event.type is EventType.ADDED:
                seen.add(event.object["metadata"]["name"])
    assert seen == {f"other-{number}" for number in range(5)}
    assert await writer.wait() == 0


async def test_objects_outlive_the_process(local: LocalCluster) -> None:
    await local.apply(config("kept", a="1"))
    again = LocalCluster(local.state_dir)
    assert (await again.get(Ref(CONFIG_MAP, "kept", "test")))["data"] == {"a": "1"}
    await again.close()


async def test_files_are_for_their_owner_only(local: LocalCluster) -> None:
    await local.apply(config("a"))
    assert stat.S_IMODE(local.state_dir.stat().st_mode) == 0o700
    for path in local.state_dir.glob(f"{DATABASE}*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_watcher_behind_the_trim_lists_afresh(local: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "CHANGES_KEPT", 10)
    await local.apply(config("stays"))
    await local.apply(config("goes"))
    events = local.watch(CONFIG_MAP, namespace="test")
    assert {(await anext(events)).object["metadata"]["name"] for _ in range(2)} == {"stays", "goes"}
    await local.delete(Ref(CONFIG_MAP, "goes", "test"))
    for number in range(300):
        await local.apply(config("busy", n=str(number)))
    async with asyncio.timeout(10):
        caught = [await anext(events) for _ in range(2)]
    assert [(event.type, event.object["metadata"]["name"]) for event in caught] == [
        (EventType.ADDED, "busy"),
        (EventType.DELETED, "goes"),
    ]
    assert caught[0].object["data"] == {"n": "299"}


async def test_change_log_does_not_grow_without_end(local: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "CHANGES_KEPT", 10)
    for number in range(600):
        await local.apply(config("busy", n=str(number)))
    rows = sqlite3.connect(local.state_dir / DATABASE).execute("SELECT count(*) FROM changes").fetchone()
    assert rows[0] < 300


async def test_locked_file_is_unavailable_then_well(local: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "BUSY_SECONDS", 0.1)
    await local.apply(config("a", n="1"))
    holder = sqlite3.connect(local.state_dir / DATABASE, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="another process"):
        await local.apply(config("a", n="2"))
    assert (await local.get(Ref(CONFIG_MAP, "a", "test")))["data"] == {"n": "1"}
    holder.execute("ROLLBACK")
    assert (await local.apply(config("a", n="2")))["data"] == {"n": "2"}
    holder.close()


async def test_damaged_file_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database at all" * 100)
    cluster = LocalCluster(tmp_path)
    with pytest.raises(UnavailableError, match="move the file away"):
        await cluster.list(CONFIG_MAP)
    await cluster.close()


async def test_full_disk_is_unavailable_and_leaves_the_object_whole(local: LocalCluster) -> None:
    await local.apply(config("a", n="1"))
    await local._in_thread(lambda _: local._connection.execute("PRAGMA max_page_count = 1"), write=False)
    with pytest.raises(UnavailableError, match="disk is full"):
        await local.apply(config("big", n="x" * 4_000_000))
    assert [item["metadata"]["name"] for item in await local.list(CONFIG_MAP)] == ["a"]


async def test_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cluster = LocalCluster(tmp_path / "file" / "state")
    with pytest.raises(UnavailableError, match="cannot be opened"):
        await cluster.list(CONFIG_MAP)
    await cluster.close()


async def test_failed_write_leaves_no_trace(local: LocalCluster) -> None:
    await local.create(config("a"))
    before = (await local.get(Ref(CONFIG_MAP, "a", "test")))["metadata"]["resourceVersion"]
    with pytest.raises(ConflictError):
        await local.create(config("a"))
    after = await local.apply(config("b"))
    assert int(after["metadata"]["resourceVersion"]) == int(before) + 1


async def test_idle_watches_cost_next_to_nothing(local: LocalCluster) -> None:
    """25 looks a second at shared memory, not at the file: a few thousandths of a core; the bound is loose."""
    watches = [local.watch(CONFIG_MAP, namespace="test") for _ in range(5)]
    await local.apply(config("a"))
    for events in watches:
        await anext(events)
    waiting = [asyncio.ensure_future(anext(events)) for events in watches]
    await asyncio.sleep(0.1)
    began = time.process_time()
    await asyncio.sleep(1.0)
    assert time.process_time() - began < 0.1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_objects_are_plain_json_in_the_file(local: LocalCluster) -> None:
    await local.apply(config("a", n="1"))
    rows = sqlite3.connect(local.state_dir / DATABASE).execute("SELECT body FROM objects").fetchall()
    assert [json.loads(body)["data"] for (body,) in rows] == [{"n": "1"}]
