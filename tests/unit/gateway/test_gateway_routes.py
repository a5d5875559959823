"""Names of models, what the watch makes of objects, and which endpoints count."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from enginewright_api.recipe import Task
from enginewright_cluster.port import (
    ENDPOINT_SLICE,
    OPTIMIZED_MODEL,
    EventType,
    InvalidError,
    Kind,
    Object,
    UnavailableError,
    WatchEvent,
)
from enginewright_gateway.errors import RefusedError
from enginewright_gateway.routes import Endpoint, RouteTable, ServedModel, resolve, short_ids
from enginewright_gateway.watch import follow, ready_endpoints, served_model


def model(name: str, namespace: str = "a") -> ServedModel:
    return ServedModel(
        namespace=namespace, name=name, task=Task.EMBEDDING, max_batch_size=8, max_queue_size=4, queue_timeout_seconds=1
    )


def manifest(name: str = "words", namespace: str = "search", **parts: Any) -> Object:
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "OptimizedModel",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "source": {"package": {"name": "w", "version": "1"}},
            "task": "Embedding",
            "hardware": {"acceleratorClasses": ["cpu"]},
        },
        **parts,
    }


def endpoint_slice(name: str, *endpoints: Mapping[str, Any], family: str = "IPv4", ports: Any = None) -> Object:
    return {
        "metadata": {"name": name, "namespace": "search", "labels": {"kubernetes.io/service-name": "words"}},
        "addressType": family,
        "ports": ports or [{"name": "http", "port": 8000}, {"name": "grpc", "port": 8001}],
        "endpoints": list(endpoints),
    }


MODELS = [model("words"), model("docs"), model("docs", "b")]


@pytest.mark.parametrize(
    ("wanted", "namespace", "found"),
    [("words", None, "a/words"), ("a/words", None, "a/words"), ("docs", "b", "b/docs"), ("b/docs", None, "b/docs")],
)
def test_names_are_found(wanted: str, namespace: str | None, found: str) -> None:
    assert resolve(MODELS, wanted, namespace).id == found


@pytest.mark.parametrize(
    ("wanted", "namespace", "status", "says"),
    [
        ("docs", None, 400, "a/docs, b/docs"),
        ("none", None, 404, "there is: a/docs, b/docs, words"),
        ("words", "b", 404, "b/words"),
        ("a/", None, 404, "does not exist"),
        ("", None, 404, "does not exist"),
        ("x" * 5000, None, 404, "x" * 200 + "'"),
    ],
)
def test_other_names_are_refused_with_what_there_is(wanted: str, namespace: str | None, status: int, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as caught:
        resolve(MODELS, wanted, namespace)
    assert caught.value.status == status


def test_listed_names_are_short_where_they_are_unique() -> None:
    assert list(short_ids(MODELS)) == ["words", "a/docs", "b/docs"]


def test_the_spec_gives_batch_queue_and_patience() -> None:
    spec = manifest()["spec"] | {
        "batching": {"maxBatchSize": 4, "maxQueueSize": 7, "queueTimeoutMilliseconds": 250},
    }
    read = served_model(manifest(spec=spec))
    assert (read.id, read.max_batch_size, read.max_queue_size) == ("search/words", 4, 7)
    assert (read.queue_timeout_seconds, read.created) == (0.25, 1767225600)
    assert served_model(manifest()).max_batch_size == 32  # engine.limits.maxBatchSize


@pytest.mark.parametrize(
    ("status", "condition"),
    [("True", ""), ("False", "BuildFailed: out of disk"), ("Unknown", "BuildFailed: out of disk")],
)
def test_why_a_model_is_not_ready_is_its_ready_condition(status: str, condition: str) -> None:
    ready = {
        "type": "Ready", "status": status, "reason": "BuildFailed", "message": "out of disk",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert served_model(manifest(status={"conditions": [ready]})).condition == condition
    assert "operator" in served_model(manifest()).condition


ONE, SIX = {"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}


@pytest.mark.parametrize(
    ("slices", "addresses"),
    [
        ([endpoint_slice("s", ONE | {"conditions": {"ready": True}})], ["10.0.0.1"]),
        ([endpoint_slice("s", ONE)], ["10.0.0.1"]),
        ([endpoint_slice("s", ONE | {"conditions": {"ready": False, "serving": True}})], []),
        ([endpoint_slice("s", ONE, ports=[{"name": "metrics", "port": 1}])], []),
        ([endpoint_slice("s", ONE), endpoint_slice("t", ONE)], ["10.0.0.1"]),
        ([endpoint_slice("s", ONE), endpoint_slice("t", SIX, family="IPv6")], ["10.0.0.1"]),
        ([endpoint_slice("t", SIX, family="IPv6")], ["fd00::1"]),
        ([endpoint_slice("t", {"addresses": ["a.example"]}, family="FQDN")], []),
        ([endpoint_slice("s")], []),
    ],
    ids=["ready", "no condition", "terminating", "other ports", "twice", "dual stack", "IPv6", "names", "empty"],
)
def test_endpoints_that_count(slices: list[Object], addresses: list[str]) -> None:
    assert [endpoint.address for endpoint in ready_endpoints(slices)] == addresses


def test_an_ipv6_address_is_bracketed_in_urls() -> None:
    assert Endpoint("fd00::1", 1, 2).host == "[fd00::1]"


def test_listeners_hear_only_changes() -> None:
    table, heard = RouteTable(), list[tuple[str, bool]]()
    table.put_model(model("words"))
    table.listen(lambda model_id, present: heard.append((model_id, present is not None)))
    table.put_model(model("words"))
    table.put_endpoints("a/words", [Endpoint("10.0.0.1", 1, 2)])
    table.put_endpoints("a/words", [Endpoint("10.0.0.1", 1, 2)])
    table.put_endpoints("a/unknown", [])
    table.drop_model("a/words")
    table.drop_model("a/words")
    assert heard == [("a/words", True), ("a/words", True), ("a/words", False)]


def test_endpoints_may_be_known_before_their_model() -> None:
    table = RouteTable()
    table.put_endpoints("a/words", [Endpoint("10.0.0.1", 1, 2)])
    table.put_model(model("words"))
    found = table.get("a/words")
    assert found is not None and found.endpoints == (Endpoint("10.0.0.1", 1, 2),)


class ScriptedCluster:
    """The part of the Cluster port that `follow` uses; the first watch and list of each kind fail."""

    def __init__(self) -> None:
        self.objects: dict[Kind, list[Object]] = {OPTIMIZED_MODEL: [], ENDPOINT_SLICE: []}
        self.queues: dict[Kind, asyncio.Queue[WatchEvent]] = {kind: asyncio.Queue() for kind in self.objects}
        self.failures = {("watch", kind) for kind in self.objects} | {("list", kind) for kind in self.objects}

    def _fail_once(self, what: str, kind: Kind) -> None:
        if (what, kind) in self.failures:
            self.failures.remove((what, kind))
            raise UnavailableError("Unavailable", "503")

    async def list(self, kind: Kind, *, namespace: str | None = None) -> Sequence[Object]:
        self._fail_once("list", kind)
        return self.objects[kind]

    async def watch(self, kind: Kind, *, namespace: str | None = None) -> AsyncIterator[WatchEvent]:
        self._fail_once("watch", kind)
        for item in self.objects[kind]:
            yield WatchEvent(EventType.ADDED, item)
        while True:
            yield await self.queues[kind].get()


async def test_the_table_follows_the_cluster_through_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginewright_gateway.watch._RETRY_SECONDS", 0.01)
    monkeypatch.setattr("enginewright_gateway.watch._SYNC_POLL_SECONDS", 0.01)
    cluster, table = ScriptedCluster(), RouteTable()
    cluster.objects[OPTIMIZED_MODEL] = [manifest()]
    cluster.objects[ENDPOINT_SLICE] = [endpoint_slice("s1", {"addresses": ["10.0.0.1"]})]
    following = asyncio.ensure_future(follow(cluster, table))  # type: ignore[arg-type]  # the part that it uses

    async def until(addresses: list[str] | None) -> None:
        async with asyncio.timeout(5):
            while True:
                found = table.get("search/words")
                if table.synced and (None if found is None else [e.address for e in found.endpoints]) == addresses:
                    return
                await asyncio.sleep(0.01)

    await until(["10.0.0.1"])
    second = endpoint_slice("s2", {"addresses": ["10.0.0.2"]})
    cluster.queues[ENDPOINT_SLICE].put_nowait(WatchEvent(EventType.ADDED, second))
    await until(["10.0.0.1", "10.0.0.2"])
    cluster.queues[ENDPOINT_SLICE].put_nowait(WatchEvent(EventType.DELETED, cluster.objects[ENDPOINT_SLICE][0]))
    await until(["10.0.0.2"])
    relabelled = endpoint_slice("s2", {"addresses": ["10.0.0.2"]}) | {"metadata": {"name": "s2", "namespace": "search"}}
    cluster.queues[ENDPOINT_SLICE].put_nowait(WatchEvent(EventType.MODIFIED, relabelled))
    await until([])
    unreadable = manifest() | {"spec": {"task": "Unheard"}}
    cluster.queues[OPTIMIZED_MODEL].put_nowait(WatchEvent(EventType.MODIFIED, unreadable))
    await until([])  # the last good route stays
    cluster.queues[OPTIMIZED_MODEL].put_nowait(WatchEvent(EventType.DELETED, manifest()))
    await until(None)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_what_waiting_cannot_mend_ends_the_following() -> None:
    class Forbidding(ScriptedCluster):
        async def list(self, kind: Kind, *, namespace: str | None = None) -> Sequence[Object]:
            raise InvalidError("Forbidden", "may not list")

    with pytest.raises(InvalidError, match="may not list"):
        await follow(Forbidding(), RouteTable())  # type: ignore[arg-type]  # the part that it uses
