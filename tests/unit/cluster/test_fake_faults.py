"""Faults of the Fake: what each does to the caller, to the objects and to watchers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import Call, Fault, Rule, Script
from enginewright_cluster.port import CONFIG_MAP, ConflictError, Object, Ref, UnavailableError


def config(name: str, **data: str) -> Object:
    metadata = {"name": name, "namespace": "test"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def ref(name: str) -> Ref:
    return Ref(CONFIG_MAP, name, "test")


@pytest.mark.parametrize(
    ("fault", "error", "happened"),
    [
        (Fault.CONFLICT, ConflictError, False),
        (Fault.UNAVAILABLE, UnavailableError, False),
        (Fault.LOST_REPLY, UnavailableError, True),
    ],
)
async def test_call_faults(fault: Fault, error: type[Exception], happened: bool) -> None:
    cluster = FakeCluster(faults=Script(Rule(fault, verb="apply")))
    with pytest.raises(error):
        await cluster.apply(config("a"))
    assert bool(await cluster.list(CONFIG_MAP)) is happened
    assert len(cluster.writes) == int(happened)
    await cluster.apply(config("a"))  # once only


async def test_rules_choose_by_verb_kind_name_and_count() -> None:
    script = Script(Rule(Fault.UNAVAILABLE, verb="apply", kind=CONFIG_MAP, name="b", times=2, after=1))
    cluster = FakeCluster(faults=script)
    await cluster.apply(config("a"))
    await cluster.apply(config("b"))
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await cluster.apply(config("b"))
    await cluster.apply(config("b"))


async def test_reads_can_be_unavailable_but_never_conflict() -> None:
    cluster = FakeCluster(faults=Script(Rule(Fault.CONFLICT, times=9)))
    assert await cluster.list(CONFIG_MAP) == []
    cluster.faults = Script(Rule(Fault.UNAVAILABLE, verb="list"))
    with pytest.raises(UnavailableError):
        await cluster.list(CONFIG_MAP)


async def test_any_callable_can_choose_the_fault() -> None:
    calls: list[Call] = []

    def every_second(call: Call) -> Fault | None:
        calls.append(call)
        return Fault.UNAVAILABLE if len(calls) % 2 == 0 else None

    cluster = FakeCluster(faults=every_second)
    await cluster.apply(config("a"))
    with pytest.raises(UnavailableError):
        await cluster.get(ref("a"))
    assert [call.verb for call in calls] == ["apply", "get"]


async def test_write_log_tells_writes_that_change_nothing() -> None:
    cluster = FakeCluster()
    await cluster.apply(config("a"))
    await cluster.apply(config("a"))
    await cluster.delete(ref("none"))
    await cluster.get(ref("a"))
    assert [(write.verb, write.ref.name, write.changed) for write in cluster.writes] == [
        ("apply", "a", True),
        ("apply", "a", False),
        ("delete", "none", False),
    ]


async def events_of(cluster: FakeCluster, act: list[Object | str]) -> list[tuple[str, str, str | None]]:
    """What a watch says while objects are applied (or, given a name, deleted)."""
    stream = cluster.watch(CONFIG_MAP)
    seen: list[tuple[str, str, str | None]] = []

    async def follow() -> None:
        async for event in stream:
            item = event.object
            seen.append((event.type.value, item["metadata"]["name"], item.get("data", {}).get("n")))

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    for step in act:
        if isinstance(step, str):
            await cluster.delete(ref(step))
        else:
            await cluster.apply(step)
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return seen


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (None, [("ADDED", "a", "1"), ("MODIFIED", "a", "2"), ("MODIFIED", "a", "3")]),
        (
            Fault.DUPLICATE_EVENT,
            [("ADDED", "a", "1"), ("MODIFIED", "a", "2"), ("MODIFIED", "a", "2"), ("MODIFIED", "a", "3")],
        ),
        (Fault.DELAYED_EVENT, [("ADDED", "a", "1"), ("MODIFIED", "a", "3"), ("MODIFIED", "a", "2")]),
        (
            Fault.STALE_EVENT,
            [("ADDED", "a", "1"), ("MODIFIED", "a", "2"), ("MODIFIED", "a", "1"), ("MODIFIED", "a", "3")],
        ),
        (Fault.EXPIRED_WATCH, [("ADDED", "a", "1"), ("MODIFIED", "a", "2"), ("MODIFIED", "a", "3")]),
    ],
)
async def test_event_faults(fault: Fault | None, expected: list[tuple[str, str, str]]) -> None:
    cluster = FakeCluster(faults=Script(Rule(fault, verb="watch", after=1)) if fault else None)
    assert await events_of(cluster, [config("a", n=n) for n in "123"]) == expected


async def test_deletion_missed_across_a_relist_is_reported() -> None:
    cluster = FakeCluster(faults=Script(Rule(Fault.EXPIRED_WATCH, after=1)))
    seen = await events_of(cluster, [config("a", n="1"), "a", config("b", n="1")])
    assert seen == [("ADDED", "a", "1"), ("DELETED", "a", None), ("ADDED", "b", "1")], (
        "what is gone is told by its name"
    )


async def test_broken_watch_with_nothing_missed_says_nothing() -> None:
    cluster = FakeCluster()
    await cluster.apply(config("a"))
    stream = cluster.watch(CONFIG_MAP)
    await anext(stream)
    cluster.break_watches()
    await cluster.apply(config("b"))
    assert (await anext(stream)).object["metadata"]["name"] == "b"


async def test_same_history_gives_the_same_objects() -> None:
    """Identities and versions depend on the calls alone."""

    async def history() -> list[Object]:
        cluster = FakeCluster(now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
        await cluster.apply(config("a", n="1"))
        await cluster.apply(config("b", n="1"))
        await cluster.delete(ref("a"))
        return list(await cluster.list(CONFIG_MAP))

    assert await history() == await history()


async def test_logs_are_those_put_in() -> None:
    cluster = FakeCluster()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "test"}}
    created = await cluster.create(pod | {"spec": {"containers": [{"name": "c"}]}})
    cluster.pod_logs["test", "p"] = "1\n2\n3\n"
    from enginewright_cluster.port import POD

    assert await cluster.logs(Ref(POD, "p", "test"), tail_lines=2) == "2\n3\n"
    assert created["metadata"]["generation"] == 1
