"""Reads from memory: never older than our own last write, whatever the watch tells or does not tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import READS, Call, Fault, Rule, Script
from enginewright_cluster.informed import Informed
from enginewright_cluster.object_cache import ObjectCache
from enginewright_cluster.port import (
    CONFIG_MAP,
    SERVICE,
    ConflictError,
    Kind,
    NotFoundError,
    Object,
    Ref,
    UnavailableError,
    WatchEvent,
)

OURS = {"managed": "yes"}
ONE = Ref(CONFIG_MAP, "one", "default")


def config(name: str = "one", *, model: str = "a", **data: str) -> dict[str, Any]:
    labels = {**OURS, "model": model}
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Counting(Script):
    """Counts what is asked of the cluster itself."""

    def __init__(self, *rules: Rule) -> None:
        super().__init__(*rules)
        self.reads = 0

    def __call__(self, call: Call) -> Fault | None:
        self.reads += call.verb in READS
        return super().__call__(call)


@contextlib.asynccontextmanager
async def informed(*rules: Rule) -> AsyncIterator[tuple[Informed, FakeCluster, Counting]]:
    """One whose watch of ConfigMaps has begun."""
    script = Counting()
    inner = FakeCluster(faults=script)
    await inner.create(config())
    cluster = Informed(inner, [CONFIG_MAP], ["model"])
    async with _following(cluster):
        await cluster.begun()
        await _told()
        script.reads = 0
        script.rules = list(rules)
        yield cluster, inner, script


@contextlib.asynccontextmanager
async def _following(cluster: Informed, labels: dict[str, str] | None = OURS) -> AsyncIterator[None]:
    """Its watch of ConfigMaps runs."""

    async def follow() -> None:
        async for _ in cluster.watch(CONFIG_MAP, labels=labels):
            pass

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _told() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_watched_is_read_without_a_request() -> None:
    async with informed() as (cluster, inner, script):
        await inner.create(config("two", model="b"))
        await _told()
        assert (await cluster.get(ONE))["metadata"]["name"] == "one"
        assert [item["metadata"]["name"] for item in await cluster.list(CONFIG_MAP, labels=OURS)] == ["one", "two"]
        mine = await cluster.list(CONFIG_MAP, namespace="default", labels={"model": "b"})
        assert [item["metadata"]["name"] for item in mine] == ["two"]
        assert await cluster.list(CONFIG_MAP, namespace="elsewhere", labels=OURS) == []
        assert script.reads == 0
        await cluster.list(CONFIG_MAP)
        await cluster.list(SERVICE)
        assert script.reads == 2, "what the watch does not cover is asked for"


async def test_what_a_reader_does_to_an_object_is_its_own() -> None:
    async with informed() as (cluster, _, _):
        (await cluster.get(ONE))["data"] = {"spoiled": "yes"}
        assert (await cluster.get(ONE)).get("data") != {"spoiled": "yes"}


async def test_own_writes_are_known_before_their_events() -> None:
    async with informed() as (cluster, _, script):
        await cluster.apply(config(n="2"))
        assert (await cluster.get(ONE))["data"] == {"n": "2"}
        await cluster.create(config("two"))
        await cluster.patch(Ref(CONFIG_MAP, "two", "default"), {"data": {"n": "3"}})
        assert [item.get("data") for item in await cluster.list(CONFIG_MAP, labels=OURS)] == [{"n": "2"}, {"n": "3"}]
        assert script.reads == 0
        await cluster.delete(ONE)
        assert [item["metadata"]["name"] for item in await cluster.list(CONFIG_MAP, labels=OURS)] == ["two"]


async def test_a_lost_reply_is_looked_into() -> None:
    lost = [
        Rule(Fault.LOST_REPLY, verb="apply"),
        Rule(Fault.LOST_REPLY, verb="create"),
        Rule(Fault.LOST_REPLY, verb="delete"),
    ]
    async with informed(*lost) as (cluster, _, _):
        with pytest.raises(UnavailableError):
            await cluster.apply(config(n="2"))
        assert (await cluster.get(ONE))["data"] == {"n": "2"}
        with pytest.raises(UnavailableError):
            await cluster.create(config("two"))
        assert len(await cluster.list(CONFIG_MAP, labels=OURS)) == 2
        with pytest.raises(UnavailableError):
            await cluster.delete(ONE)
        assert len(await cluster.list(CONFIG_MAP, labels=OURS)) == 1


async def test_nothing_is_answered_while_the_outcome_of_a_write_cannot_be_known() -> None:
    rules = [Rule(Fault.LOST_REPLY, verb="apply"), Rule(Fault.UNAVAILABLE, verb="list", times=2)]
    async with informed(*rules) as (cluster, _, _):
        with pytest.raises(UnavailableError):
            await cluster.apply(config(n="2"))
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await cluster.list(CONFIG_MAP, labels=OURS)
        assert (await cluster.get(ONE))["data"] == {"n": "2"}


async def test_a_conflict_means_that_we_were_behind() -> None:
    rule = Rule(Fault.DELAYED_EVENT, verb="watch")
    async with informed(rule) as (cluster, inner, _):
        await inner.patch(ONE, {"data": {"n": "theirs"}})
        await _told()
        seen = await cluster.get(ONE)
        assert "data" not in seen or seen["data"] != {"n": "theirs"}
        with pytest.raises(ConflictError):
            await cluster.patch(ONE, {"metadata": {"resourceVersion": seen["metadata"]["resourceVersion"]}, "data": {}})
        assert (await cluster.get(ONE))["data"] == {"n": "theirs"}


@pytest.mark.parametrize("fault", [Fault.STALE_EVENT, Fault.DUPLICATE_EVENT])
async def test_outdated_events_bring_nothing_back(fault: Fault) -> None:
    async with informed(Rule(fault, verb="watch", times=9)) as (cluster, inner, _):
        await inner.patch(ONE, {"data": {"n": "2"}})
        await _told()
        assert (await cluster.get(ONE))["data"] == {"n": "2"}
        await inner.delete(ONE)
        await _told()
        assert await cluster.list(CONFIG_MAP, labels=OURS) == []
        with pytest.raises(NotFoundError):
            await cluster.get(ONE)
        await inner.create(config(n="again"))
        await _told()
        assert (await cluster.get(ONE))["data"] == {"n": "again"}


async def test_a_relist_is_taken_over() -> None:
    async with informed(Rule(Fault.EXPIRED_WATCH, verb="watch")) as (cluster, inner, _):
        await inner.delete(ONE)
        await inner.create(config("two"))
        inner.break_watches()
        await _told()
        assert [item["metadata"]["name"] for item in await cluster.list(CONFIG_MAP, labels=OURS)] == ["two"]


async def test_objects_are_looked_up_by_name_and_found_by_their_owners() -> None:
    inner = FakeCluster()
    cluster = Informed(inner, [CONFIG_MAP], ["model"], owned_kinds=[CONFIG_MAP])
    uids = {name: (await inner.create(config(name)))["metadata"]["uid"] for name in ("a", "b")}

    def owned_by(name: str, *owners: str) -> dict[str, Any]:
        manifest = config(name)
        references = [{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uids[owner]} for owner in owners]
        return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": references}}

    async def names() -> tuple[list[str], list[str]]:
        owned = await cluster.owned(CONFIG_MAP, "default", uids["a"])
        return sorted(await cluster.named(CONFIG_MAP, "default")), [item["metadata"]["name"] for item in owned]

    for manifest in (owned_by("one", "a", "b"), owned_by("two", "b"), config("three")):
        await inner.create(manifest)
    before = await names()
    assert before == (["a", "b", "one", "three", "two"], ["one"]), "asked for while nothing is watched"
    async with _following(cluster, labels=None):
        await cluster.begun()
        assert await names() == before
        two = Ref(CONFIG_MAP, "two", "default")
        assert (await cluster.named(CONFIG_MAP, "default"))["two"] == await inner.get(two)
        assert (await cluster.named(CONFIG_MAP, "default")).get("four") is None
        assert not await cluster.named(CONFIG_MAP, "elsewhere")
        await cluster.patch(ONE, {"metadata": {"ownerReferences": None}})
        await cluster.patch(two, {"metadata": {"ownerReferences": owned_by("two", "a")["metadata"]["ownerReferences"]}})
        assert (await names())[1] == ["two"]


def test_a_thousand_objects_take_little_memory() -> None:
    """Packed: an object of 4 KB as Python dictionaries is ten times that, and resembles the one before."""
    cache = ObjectCache(["model"])
    text = {f"field{number}": {"description": "a value that repeats", "number": number} for number in range(80)}
    for number in range(200):
        item = config(f"c{number}", model=str(number)) | {"spec": text}
        item["metadata"] |= {"resourceVersion": str(number + 1), "uid": str(number)}
        cache.put(item)
    assert sum(len(packed.content) for packed in cache._packed.values()) < 200 * 200
    assert cache.select("default", {"model": "7"})[0]["spec"] == text


def test_objects_that_come_and_go_leave_nothing_behind() -> None:
    """But for the uids of the last two minutes: no answer that is older than a deletion takes longer to come."""
    now = 0.0
    cache = ObjectCache(["model"], by_owner=True, clock=lambda: now)

    def item(number: int) -> dict[str, Any]:
        made, owner = config(model=str(number)), {"uid": f"owner-{number}"}
        made["metadata"] |= {"namespace": f"n{number}", "uid": str(number), "ownerReferences": [owner]}
        return made

    for number in range(1_000):
        now = float(number)
        assert cache.put(item(number))
        assert cache.deleted(item(number))
        assert not cache.put(item(number)), "an answer that comes late"
    assert len(cache._gone) == 121
    assert not cache._packed
    assert not cache._index
    assert not cache._by_namespace
    assert not cache.put(item(999 - 120))
    assert cache.put(item(999 - 121))


class WithoutConfigMaps(FakeCluster):
    """A cluster that does not know the kind until it is installed."""

    installed, asked = False, 0

    async def list(self, kind: Kind, **selection: Any) -> Sequence[Object]:
        """Refuses as an API server does."""
        self._served(kind)
        return await super().list(kind, **selection)

    async def watch(self, kind: Kind, **selection: Any) -> AsyncIterator[WatchEvent]:
        """Refuses as an API server does."""
        self._served(kind)
        async for event in super().watch(kind, **selection):
            yield event

    def _served(self, kind: Kind) -> None:
        self.asked += 1
        if kind == CONFIG_MAP and not self.installed:
            raise NotFoundError("NotFound", "ConfigMap is not served")


async def test_a_kind_that_the_cluster_lacks_is_asked_for_by_its_watch_alone() -> None:
    inner = WithoutConfigMaps()
    cluster = Informed(inner, [CONFIG_MAP], ["model"])
    with pytest.raises(NotFoundError):
        await anext(aiter(cluster.watch(CONFIG_MAP)))
    await asyncio.wait_for(cluster.begun(), 1)
    inner.asked = 0
    depths = []
    for _ in range(3):
        with pytest.raises(NotFoundError, match="ConfigMap is not served") as raised:
            await cluster.list(CONFIG_MAP)
        depths.append(len(raised.traceback))
    assert depths == depths[:1] * 3, "an error that is raised again would keep the frames of each time"
    assert inner.asked == 0
    inner.installed = True
    await inner.create(config())
    async with _following(cluster):
        await _told()
        assert [item["metadata"]["name"] for item in await cluster.list(CONFIG_MAP)] == ["one"]


async def test_a_watch_that_begins_anew_forgets_what_went_meanwhile() -> None:
    inner = FakeCluster()
    await inner.create(config())
    await inner.create(config("two"))
    cluster = Informed(inner, [CONFIG_MAP], ["model"])
    async with _following(cluster):
        await cluster.begun()
    await inner.delete(ONE)
    await inner.patch(Ref(CONFIG_MAP, "two", "default"), {"data": {"n": "2"}})
    assert len(await cluster.list(CONFIG_MAP, labels=OURS)) == 2, "nobody told it"
    async with _following(cluster):
        await _told()
        assert [item["data"] for item in await cluster.list(CONFIG_MAP, labels=OURS)] == [{"n": "2"}]


async def test_what_becomes_known_is_news_once() -> None:
    inner, news = FakeCluster(), list[str]()

    def heard(kind: Kind, event: WatchEvent) -> None:
        news.append(
            f"{event.type.value} {event.object['metadata']['name']} {event.object.get('data', {}).get('n', '')}"
        )

    await inner.create(config(n="1"))
    cluster = Informed(inner, [CONFIG_MAP], ["model"], news=heard)
    async with _following(cluster):
        await _told()
        assert news == ["ADDED one 1"]
        await cluster.apply(config(n="2"))
        assert news[1:] == ["MODIFIED one 2"], "as soon as the write is answered"
        await cluster.apply(config(n="2"))
        await _told()
        assert len(news) == 2, "neither its event is news, nor a write that changed nothing"
        await inner.patch(ONE, {"data": {"n": "3"}})
        await _told()
        assert news[2:] == ["MODIFIED one 3"]
    await inner.delete(ONE)
    async with _following(cluster):
        await _told()
    assert news[3:] == ["DELETED one 3"], "though no event told it"


async def test_nothing_is_answered_from_a_present_that_is_told_in_part() -> None:
    inner = FakeCluster()
    await inner.create(config())
    await inner.create(config("two"))
    cluster = Informed(inner, [CONFIG_MAP], ["model"])
    watch = aiter(cluster.watch(CONFIG_MAP, labels=OURS))
    await anext(watch)
    assert len(await cluster.list(CONFIG_MAP, labels=OURS)) == 2, "asked for: the watch has told one"
    assert not cluster._begun[CONFIG_MAP].is_set()


class Answering(FakeCluster):
    """Counts the objects that lists answered with."""

    answered = 0

    async def list(self, kind: Kind, **selection: Any) -> Sequence[Object]:
        """As the port's."""
        found = await super().list(kind, **selection)
        self.answered += len(found)
        return found


async def test_an_object_in_doubt_is_asked_for_alone() -> None:
    inner = Answering()
    for name in ("one", *(f"other-{number}" for number in range(20))):
        await inner.create(config(name))
    cluster = Informed(inner, [CONFIG_MAP], ["model"])
    async with _following(cluster):
        await cluster.begun()
        inner.faults = Script(Rule(Fault.UNAVAILABLE, verb="apply"))
        with pytest.raises(UnavailableError):
            await cluster.apply(config())
        inner.answered = 0
        assert (await cluster.get(ONE))["metadata"]["name"] == "one"
    assert inner.answered == 1
