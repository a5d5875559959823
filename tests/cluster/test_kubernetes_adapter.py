"""The Kubernetes adapter on a real API server; a scripted server only for what a healthy one will not do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from math import ceil
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.config import incluster_config

from enginewright_api.errors import DeterministicError
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.kubernetes_connection import Call
from enginewright_cluster.kubernetes_watch import PAGE_SIZE
from enginewright_cluster.port import (
    CONFIG_MAP,
    DEPLOYMENT,
    NAMESPACE,
    NODE,
    OPTIMIZED_MODEL,
    POD,
    SECRET,
    Cluster,
    ConflictError,
    EventType,
    InvalidError,
    Kind,
    NotFoundError,
    Ref,
    UnavailableError,
    WatchEvent,
)
from tests.kube.harness import Cluster as RealCluster
from tests.kube.harness import OwnCluster
from tests.objects.table import model

Object = dict[str, Any]
OTHER_UID = "00000000-0000-4000-8000-000000000000"
MAP_OF_MANY = {"many": "yes"}


@pytest.fixture(scope="module")
def served(kube_crds: RealCluster) -> RealCluster:
    """The shared cluster with our kinds."""
    return kube_crds


@pytest.fixture
async def calls() -> list[Call]:
    return []


@pytest.fixture
async def cluster(served: RealCluster, calls: list[Call]) -> AsyncIterator[Cluster]:
    opened: Cluster = await KubernetesCluster.from_kubeconfig(served.kubeconfig, observe=calls.append)
    yield opened
    await opened.close()


def config_map(namespace: str, name: str = "one", labels: dict[str, str] | None = None, **data: str) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def named(namespace: str, name: str = "one", kind: Kind = CONFIG_MAP) -> Ref:
    return Ref(kind, name, namespace)


def in_namespace(manifest: Object, namespace: str) -> Object:
    return manifest | {"metadata": manifest["metadata"] | {"namespace": namespace}}


def deployment(namespace: str) -> Object:
    labels = {"app": "one"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one", "namespace": namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod},
    }


def pod(namespace: str, *containers: Object) -> Object:
    spec = {"restartPolicy": "Never", "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": namespace}, "spec": spec}


def wait_for_service_account(source: RealCluster, namespace: str) -> None:
    """Pods are refused until the controller has made it."""
    source.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={namespace}", "--timeout=30s")


# --- objects ---------------------------------------------------------------------------------------------------------


async def test_create_get_and_delete(cluster: Cluster, kube_namespace: str) -> None:
    created = await cluster.create(config_map(kube_namespace, a="1"))
    assert created["metadata"]["uid"]
    with pytest.raises(ConflictError, match="already exists"):
        await cluster.create(config_map(kube_namespace))

    got = await cluster.get(named(kube_namespace))
    assert (got["apiVersion"], got["kind"], got["data"]) == ("v1", "ConfigMap", {"a": "1"})
    assert "managedFields" not in got["metadata"]

    with pytest.raises(ConflictError):
        await cluster.delete(named(kube_namespace), uid=OTHER_UID)
    await cluster.delete(named(kube_namespace), uid=got["metadata"]["uid"])
    with pytest.raises(NotFoundError, match=f"{kube_namespace}/one.*not found"):
        await cluster.get(named(kube_namespace))
    await cluster.delete(named(kube_namespace))


async def test_apply_owns_fields_and_reports_whose_they_are(cluster: Cluster, kube_namespace: str) -> None:
    await cluster.apply(config_map(kube_namespace, a="1", b="1"))
    await cluster.apply(config_map(kube_namespace, c="3"), field_manager="another")
    with pytest.raises(ConflictError, match=r'"enginewright".*data\.a'):
        await cluster.apply(config_map(kube_namespace, a="2"), field_manager="another", force=False)
    merged = await cluster.apply(config_map(kube_namespace, a="1"))
    assert merged["data"] == {"a": "1", "c": "3"}, "what is left out goes, what others own stays"
    taken = await cluster.apply(config_map(kube_namespace, a="2"), field_manager="another")
    assert taken["data"]["a"] == "2"


async def test_apply_never_writes_status_even_on_creation(cluster: Cluster, served: RealCluster) -> None:
    name = "kubernetes-adapter-status"
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"capacity": {"cpu": "7"}}}
    try:
        applied = await cluster.apply(manifest)
        assert "cpu" not in applied["status"].get("capacity", {})
        assert manifest["status"] == {"capacity": {"cpu": "7"}}
    finally:
        await cluster.delete(Ref(NODE, name))


async def test_what_was_read_can_be_applied(cluster: Cluster, kube_namespace: str) -> None:
    await cluster.create(config_map(kube_namespace, a="1"))
    read = await cluster.get(named(kube_namespace))
    applied = await cluster.apply(read | {"data": {"a": "2"}})
    assert applied["data"] == {"a": "2"}
    with pytest.raises(ConflictError):
        await cluster.apply(read | {"data": {"a": "3"}})


async def test_a_broken_rule_is_told_in_the_servers_words(cluster: Cluster, kube_namespace: str) -> None:
    wrong = in_namespace(model(task="Poetry"), kube_namespace)
    with pytest.raises(InvalidError, match=r"spec\.task.*Poetry"):
        await cluster.apply(wrong)
    with pytest.raises(InvalidError, match=r"metadata\.name"):
        await cluster.create(config_map(kube_namespace, name="Not A Name"))


@pytest.mark.parametrize("name", ["..", "a/b", "a%2fb"])
async def test_a_name_cannot_lead_to_another_path(cluster: Cluster, kube_namespace: str, name: str) -> None:
    with pytest.raises(InvalidError, match=r"metadata\.name"):
        await cluster.get(named(kube_namespace, name))


async def test_merge_patch_with_preconditions(cluster: Cluster, kube_namespace: str) -> None:
    first = await cluster.create(config_map(kube_namespace, a="1", b="2"))
    uid, version = first["metadata"]["uid"], first["metadata"]["resourceVersion"]
    patch = {"data": {"b": None, "c": "3"}, "metadata": {"annotations": {"note": "x"}}}
    patched = await cluster.patch(named(kube_namespace), patch, uid=uid)
    assert patched["data"] == {"a": "1", "c": "3"}
    assert patched["metadata"]["annotations"] == {"note": "x"}
    assert "uid" not in patch["metadata"]

    with pytest.raises(ConflictError, match=OTHER_UID):
        await cluster.patch(named(kube_namespace), {"data": {"d": "4"}}, uid=OTHER_UID)
    with pytest.raises(ConflictError):
        await cluster.patch(named(kube_namespace), {"metadata": {"resourceVersion": version}, "data": {"d": "4"}})
    with pytest.raises(NotFoundError):
        await cluster.patch(named(kube_namespace, "absent"), {"data": {}})
    assert "d" not in (await cluster.get(named(kube_namespace)))["data"]


@pytest.mark.parametrize("kind", [OPTIMIZED_MODEL, DEPLOYMENT], ids=lambda kind: kind.kind)
async def test_status_and_scale(cluster: Cluster, kube_namespace: str, kind: Kind) -> None:
    manifest = deployment(kube_namespace) if kind is DEPLOYMENT else in_namespace(model("one"), kube_namespace)
    ref = named(kube_namespace, kind=kind)
    uid = (await cluster.apply(manifest))["metadata"]["uid"]

    status = {"observedGeneration": 41} if kind is OPTIMIZED_MODEL else {"collisionCount": 41}
    patched = await cluster.patch_status(ref, status, uid=uid, field_manager="tester")
    assert patched["status"].items() >= status.items()
    with pytest.raises(ConflictError, match=OTHER_UID):
        await cluster.patch_status(ref, dict.fromkeys(status, 99), uid=OTHER_UID)
    with pytest.raises(ConflictError, match=OTHER_UID):
        await cluster.patch(ref, {"metadata": {"annotations": {"a": "b"}}}, uid=OTHER_UID)
    after = await cluster.get(ref)
    assert "a" not in after["metadata"].get("annotations", {})
    assert 99 not in after["status"].values()
    with pytest.raises(NotFoundError):
        await cluster.patch_status(named(kube_namespace, "absent", kind), status)

    await cluster.scale(ref, 3)
    assert (await cluster.get(ref))["spec"]["replicas"] == 3
    with pytest.raises(NotFoundError):
        await cluster.scale(named(kube_namespace, "absent", kind), 1)


async def test_status_writers_with_a_uid_do_not_lose_to_each_other(cluster: Cluster, kube_namespace: str) -> None:
    ref = named(kube_namespace, kind=OPTIMIZED_MODEL)
    uid = (await cluster.apply(in_namespace(model("one"), kube_namespace)))["metadata"]["uid"]
    await asyncio.gather(
        cluster.patch_status(ref, {"observedGeneration": 7}, uid=uid),
        *(cluster.patch(ref, {"metadata": {"annotations": {f"a{n}": "x"}}}) for n in range(3)),
    )
    final = await cluster.get(ref)
    assert final["status"]["observedGeneration"] == 7
    assert len(final["metadata"]["annotations"]) == 3


async def test_a_known_version_spares_the_read_before_a_status(
    cluster: Cluster, calls: list[Call], kube_namespace: str
) -> None:
    ref = named(kube_namespace, kind=OPTIMIZED_MODEL)
    metadata = (await cluster.apply(in_namespace(model("one"), kube_namespace)))["metadata"]
    uid, version = metadata["uid"], metadata["resourceVersion"]

    async def verbs(status: dict[str, int], version: str, uid: str = uid) -> list[str]:
        calls.clear()
        await cluster.patch_status(ref, status, uid=uid, version=version)
        return [call.verb for call in calls]

    assert await verbs({"observedGeneration": 1}, version) == ["patch"]
    assert await verbs({"replicas": 2}, version) == ["patch", "get", "patch"], "somebody wrote since"
    status = (await cluster.get(ref))["status"]
    assert (status["observedGeneration"], status["replicas"]) == (1, 2)
    with pytest.raises(ConflictError, match=OTHER_UID):
        await verbs({"replicas": 99}, version, OTHER_UID)
    await cluster.delete(ref)
    with pytest.raises(NotFoundError):
        await verbs({"replicas": 99}, version)


async def test_a_wrong_status_is_invalid(cluster: Cluster, kube_namespace: str) -> None:
    await cluster.apply(in_namespace(model("one"), kube_namespace))
    with pytest.raises(InvalidError, match=r"status\.observedGeneration"):
        await cluster.patch_status(named(kube_namespace, kind=OPTIMIZED_MODEL), {"observedGeneration": "many"})


async def test_lists_come_in_pages_typed_and_selected(cluster: Cluster, calls: list[Call], kube_namespace: str) -> None:
    labels = [{"example.com/part": "odd" if number % 2 else "even"} for number in range(510)]
    await asyncio.gather(
        *(cluster.create(config_map(kube_namespace, f"m-{i:03}", label)) for i, label in enumerate(labels))
    )
    calls.clear()
    listed = await cluster.list(CONFIG_MAP, namespace=kube_namespace)
    names = [item["metadata"]["name"] for item in listed if item["metadata"]["name"].startswith("m-")]
    assert names == [f"m-{number:03}" for number in range(510)]
    assert {(item["apiVersion"], item["kind"]) for item in listed} == {("v1", "ConfigMap")}
    assert [(call.verb, call.plural, call.code) for call in calls] == [("list", "configmaps", 200)] * ceil(
        510 / PAGE_SIZE
    )

    odd = await cluster.list(CONFIG_MAP, namespace=kube_namespace, labels={"example.com/part": "odd"})
    assert len(odd) == 255
    everywhere = await cluster.list(CONFIG_MAP, labels={"example.com/part": "odd"})
    assert {item["metadata"]["uid"] for item in odd} <= {item["metadata"]["uid"] for item in everywhere}


async def test_a_kind_that_is_not_served_is_named(cluster: Cluster) -> None:
    kind = Kind("nobody.example.com/v1", "Thing", "things")
    with pytest.raises(NotFoundError, match=r"nobody\.example\.com/v1 Thing is not served"):
        await cluster.list(kind)
    with pytest.raises(NotFoundError, match="not served"):
        await anext(cluster.watch(kind))


async def test_logs_of_a_container(kube_node: OwnCluster, cluster: Cluster, kube_namespace: str) -> None:
    say = {"image": kube_node.busybox, "imagePullPolicy": "IfNotPresent"}
    containers = [
        {"name": "a", "command": ["sh", "-c", "echo one; echo two; echo three"], **say},
        {"name": "b", "command": ["sh", "-c", "echo other"], **say},
    ]
    await asyncio.to_thread(wait_for_service_account, kube_node, kube_namespace)
    await cluster.create(pod(kube_namespace, *containers))
    wait = (
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/one",
        f"--namespace={kube_namespace}",
        "--timeout=60s",
    )
    await asyncio.to_thread(kube_node.kubectl, *wait)
    ref = named(kube_namespace, kind=POD)
    assert await cluster.logs(ref, container="a") == "one\ntwo\nthree\n"
    assert await cluster.logs(ref, container="a", tail_lines=1) == "three\n"
    assert await cluster.logs(ref, container="b") == "other\n"
    with pytest.raises(InvalidError, match="container"):
        await cluster.logs(ref, container="absent")


# --- watches ---------------------------------------------------------------------------------------------------------


class Seen:
    """Reads a watch in the background; `until` waits for an event."""

    def __init__(self, stream: AsyncIterator[WatchEvent]) -> None:
        self.events: list[tuple[EventType, str]] = []
        self._stream = stream
        self._more = asyncio.Condition()

    async def read(self) -> None:
        async for event in self._stream:
            async with self._more:
                self.events.append((event.type, event.object["metadata"]["name"]))
                self._more.notify_all()

    async def until(self, kind: EventType, name: str, seconds: float = 40) -> None:
        async with asyncio.timeout(seconds), self._more:
            await self._more.wait_for(lambda: (kind, name) in self.events)


@contextlib.asynccontextmanager
async def reading(stream: AsyncIterator[WatchEvent]) -> AsyncIterator[Seen]:
    seen = Seen(stream)
    task = asyncio.create_task(seen.read())
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_watch_tells_the_present_then_each_change(
    cluster: Cluster, calls: list[Call], kube_namespace: str
) -> None:
    mine = {"of": "me"}
    await cluster.create(config_map(kube_namespace, "old", mine))
    await cluster.create(config_map(kube_namespace, "foreign"))
    async with reading(cluster.watch(CONFIG_MAP, namespace=kube_namespace, labels=mine)) as seen:
        await seen.until(EventType.ADDED, "old")
        await cluster.create(config_map(kube_namespace, "new", mine))
        await seen.until(EventType.ADDED, "new")
        await cluster.patch(named(kube_namespace, "new"), {"data": {"a": "1"}})
        await seen.until(EventType.MODIFIED, "new")
        await cluster.patch(named(kube_namespace, "old"), {"metadata": {"labels": {"of": None}}})
        await seen.until(EventType.DELETED, "old")
        await cluster.delete(named(kube_namespace, "new"))
        await seen.until(EventType.DELETED, "new")
    assert "foreign" not in {name for _, name in seen.events}
    assert len(seen.events) == 5
    assert [call.code for call in calls if call.verb == "watch"] == [200]


async def test_two_watches_end_when_cancelled_and_leave_the_rest_working(cluster: Cluster, kube_namespace: str) -> None:
    await cluster.create(config_map(kube_namespace))
    for _ in range(2):
        async with reading(cluster.watch(CONFIG_MAP, namespace=kube_namespace)) as seen:
            await seen.until(EventType.ADDED, "one")
    assert await cluster.get(named(kube_namespace))


async def test_watch_goes_on_after_the_api_server_was_killed(kube_private: OwnCluster) -> None:
    """Both ways back: a stream cut in the middle, and a resource version older than the new server remembers."""
    calls: list[Call] = []
    cluster = await KubernetesCluster.from_kubeconfig(kube_private.kubeconfig, observe=calls.append)
    try:
        for name in ("stays", "changes", "goes"):
            await cluster.create(config_map("default", name, MAP_OF_MANY))
        gone_stale = cluster.watch(CONFIG_MAP, namespace="default", labels=MAP_OF_MANY)
        assert {(await anext(gone_stale)).object["metadata"]["name"] for _ in range(3)} == {"stays", "changes", "goes"}
        async with reading(cluster.watch(CONFIG_MAP, namespace="default", labels=MAP_OF_MANY)) as seen:
            await seen.until(EventType.ADDED, "stays")
            await cluster.delete(named("default", "goes"))
            await cluster.patch(named("default", "changes"), {"data": {"a": "1"}})
            await seen.until(EventType.MODIFIED, "changes")

            kube_private.signal("apiserver", SIGKILL)
            with pytest.raises(UnavailableError, match="get configmaps default/stays"):
                await cluster.get(named("default", "stays"))
            await asyncio.to_thread(kube_private.start, "control")

            await cluster.create(config_map("default", "fresh", MAP_OF_MANY))
            await seen.until(EventType.ADDED, "fresh")
        assert len(seen.events) == len(set(seen.events)) == 6, "nothing is told twice"

        # This watch had only listed when the others went on, so it now asks for what the new server never knew.
        calls.clear()
        async with asyncio.timeout(40):
            missed = [await anext(gone_stale) for _ in range(3)]
        assert [(event.type, event.object["metadata"]["name"]) for event in missed] == [
            (EventType.MODIFIED, "changes"),
            (EventType.ADDED, "fresh"),
            (EventType.DELETED, "goes"),
        ]
        assert missed[0].object["metadata"]["labels"] == MAP_OF_MANY, "the last that was known of it"
        assert "list" in {call.verb for call in calls}, "it was the list that told, not a replay"
    finally:
        await cluster.close()


# --- access ----------------------------------------------------------------------------------------------------------


def kubeconfig(path: Path, source: RealCluster, user: Object, **server: Any) -> Path:
    """A kubeconfig for the same server and another user."""
    admin = yaml.safe_load(source.kubeconfig.read_text())
    admin["clusters"][0]["cluster"] |= server
    admin["users"] = [{"name": admin["contexts"][0]["context"]["user"], "user": user}]
    path.write_text(yaml.safe_dump(admin))
    return path


def token(source: RealCluster, namespace: str) -> str:
    wait_for_service_account(source, namespace)
    return source.kubectl("create", "token", "default", f"--namespace={namespace}").stdout.strip()


@contextlib.asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[KubernetesCluster]:
    cluster = await KubernetesCluster.from_kubeconfig(path, **options)
    try:
        yield cluster
    finally:
        await cluster.close()


async def test_what_is_forbidden_names_verb_and_resource(
    served: RealCluster, kube_namespace: str, tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path / "config", served, {"token": token(served, kube_namespace)})
    async with opened(path) as cluster:
        with pytest.raises(DeterministicError, match=r'list secrets.*cannot list resource "secrets"') as caught:
            await cluster.list(SECRET, namespace=kube_namespace)
        assert caught.value.reason == "Forbidden"
        with pytest.raises(DeterministicError, match="not allowed to list"):
            await anext(cluster.watch(SECRET, namespace=kube_namespace))


async def test_a_403_of_admission_is_about_the_object_not_about_permissions(
    served: RealCluster, cluster: Cluster, kube_namespace: str
) -> None:
    wait_for_service_account(served, kube_namespace)
    strict = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await cluster.patch(Ref(NAMESPACE, kube_namespace), strict)
    with pytest.raises(InvalidError, match='violates PodSecurity "restricted'):
        await cluster.create(pod(kube_namespace, {"name": "a", "image": "none"}))


async def test_unknown_credentials_say_so_without_showing_them(served: RealCluster, tmp_path: Path) -> None:
    async with opened(kubeconfig(tmp_path / "config", served, {"token": "sesame"})) as cluster:
        with pytest.raises(DeterministicError, match=r"list nodes.*credentials") as caught:
            await cluster.list(NODE)
    assert caught.value.reason == "Forbidden"
    assert "sesame" not in str(caught.value)


async def test_a_credential_plugin_is_asked_again_when_its_token_is_refused(
    served: RealCluster, kube_namespace: str, tmp_path: Path
) -> None:
    plugin, held = tmp_path / "plugin.py", tmp_path / "token"
    version = "client.authentication.k8s.io/v1"
    plugin.write_text(
        "import json, pathlib\n"
        f"token = pathlib.Path({str(held)!r}).read_text()\n"
        f"print(json.dumps({{'apiVersion': {version!r}, 'kind': 'ExecCredential', 'status': {{'token': token}}}}))\n"
    )
    held.write_text("stale")
    command = {"apiVersion": version, "command": sys.executable, "args": [str(plugin)], "interactiveMode": "Never"}
    calls: list[Call] = []
    async with opened(kubeconfig(tmp_path / "config", served, {"exec": command}), observe=calls.append) as cluster:
        held.write_text(token(served, kube_namespace))
        with pytest.raises(DeterministicError, match=f"system:serviceaccount:{kube_namespace}:default"):
            await cluster.list(SECRET, namespace=kube_namespace)
    assert [call.code for call in calls] == [403]


BAD_CONFIGS: dict[str, tuple[str | None, str]] = {
    "absent": (None, "there is no file"),
    "not yaml": ("a: [", "config"),
    "not a mapping": ("- a", "config"),
    "empty": ("", "config"),
    "no context": ("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n", "current-context"),
    "unknown context": ("current-context: x\nclusters: []\ncontexts: []\nusers: []\n", "name x in"),
    "no server certificate": (
        "current-context: x\nusers: []\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority: /absent.pem}}]\n",
        "/absent.pem",
    ),
    "no certificate at all": (
        "current-context: x\nusers: []\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: "
        f"{base64.b64encode(b'no certificate').decode()}}}}}]\n",
        "config",
    ),
    "plugin that fails": (
        "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin}}}]\n",
        "no-such-plugin",
    ),
}


@pytest.mark.parametrize("text,says", BAD_CONFIGS.values(), ids=BAD_CONFIGS.keys())
async def test_a_bad_kubeconfig_is_one_sentence_with_its_path(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DeterministicError, match=says) as caught:
        await KubernetesCluster.from_kubeconfig(path)
    assert caught.value.reason == "BadClusterAccess"
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


async def test_kubeconfig_is_found_by_the_environment_at_the_time_of_the_call(
    served: RealCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(served.kubeconfig))
    cluster = await KubernetesCluster.auto()
    try:
        assert await cluster.list(CONFIG_MAP, namespace="kube-system")
    finally:
        await cluster.close()


async def test_in_a_pod_the_service_account_is_used(
    served: RealCluster, kube_namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeterministicError, match="service account"):
        await KubernetesCluster.in_cluster()
    server = yaml.safe_load(served.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = tmp_path / "ca.crt"
    if "certificate-authority-data" in server:
        authority.write_bytes(base64.b64decode(server["certificate-authority-data"]))
    else:
        authority.write_bytes((served.kubeconfig.parent / server["certificate-authority"]).read_bytes())
    (tmp_path / "token").write_text(token(served, kube_namespace))
    host, port = server["server"].removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    cluster = await KubernetesCluster.auto()
    try:
        with pytest.raises(DeterministicError, match=f"system:serviceaccount:{kube_namespace}:default"):
            await cluster.list(SECRET)
    finally:
        await cluster.close()


async def test_a_server_of_another_authority_is_not_trusted(served: RealCluster, tmp_path: Path) -> None:
    authority = ssl.get_default_verify_paths().openssl_cafile
    path = kubeconfig(tmp_path / "config", served, {"token": "x"})
    text = yaml.safe_load(path.read_text())
    text["clusters"][0]["cluster"].pop("certificate-authority-data", None)
    text["clusters"][0]["cluster"]["certificate-authority"] = authority
    path.write_text(yaml.safe_dump(text))
    async with opened(path) as cluster:
        with pytest.raises(DeterministicError, match="certificate") as caught:
            await cluster.list(NODE)
    assert caught.value.reason == "UntrustedServer"


# --- what a healthy server does not do --------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def plain_kubeconfig(path: Path, server: str) -> None:
    """A kubeconfig without credentials."""
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    cluster = {"name": "x", "cluster": {"server": server}}
    path.write_text(yaml.safe_dump({"current-context": "x", "contexts": [context], "clusters": [cluster], "users": []}))


@contextlib.asynccontextmanager
async def scripted(path: Path, *answers: Handler, calls: list[Call]) -> AsyncIterator[Cluster]:
    """A server that gives these answers in order."""
    rest: Iterator[Handler] = iter(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await next(rest)(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    plain_kubeconfig(path, f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with opened(path, observe=calls.append) as cluster:
            yield cluster
    finally:
        await runner.cleanup()


def says(code: int, reason: str, **headers: str) -> Handler:
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"because of {reason}"}

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=code, headers=headers)

    return answer


def page(*names: str, more: str = "", version: str = "5") -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        items = [{"metadata": {"name": name, "uid": name, "resourceVersion": version}} for name in names]
        return web.json_response({"metadata": {"resourceVersion": version, "continue": more}, "items": items})

    return answer


def stream(*events: Object) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    return answer


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def web_page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>log in</html>", content_type="text/html")


async def test_a_busy_server_is_asked_again_when_it_says(tmp_path: Path, calls: list[Call]) -> None:
    busy = says(429, "TooManyRequests", **{"Retry-After": "0"})
    async with scripted(tmp_path / "config", busy, busy, page("a"), busy, busy, busy, calls=calls) as cluster:
        assert len(await cluster.list(CONFIG_MAP)) == 1
        with pytest.raises(UnavailableError, match="because of TooManyRequests"):
            await cluster.create(config_map("default"))
    assert [(call.verb, call.code) for call in calls] == [("list", 429)] * 2 + [("list", 200)] + [("create", 429)] * 3


OUTAGES: dict[str, tuple[Handler, str, int]] = {
    "429 without a time": (says(429, "TooManyRequests"), "because of TooManyRequests", 429),
    "500": (says(500, "InternalError"), "because of InternalError", 500),
    "503": (says(503, "ServiceUnavailable"), "because of ServiceUnavailable", 503),
    "504": (says(504, "Timeout"), "because of Timeout", 504),
    "no answer": (hangs_up, "127.0.0.1", 0),
    "a web page": (web_page, "not JSON", 200),
}


@pytest.mark.parametrize("handler,message,code", OUTAGES.values(), ids=OUTAGES.keys())
async def test_outages_are_unavailable_and_writes_are_not_sent_twice(
    tmp_path: Path, calls: list[Call], handler: Handler, message: str, code: int
) -> None:
    async with scripted(tmp_path / "config", handler, page("never asked for"), calls=calls) as cluster:
        with pytest.raises(UnavailableError, match=message):
            await cluster.apply(config_map("default"))
    assert [call.code for call in calls] == [code]


async def test_pages_that_expire_half_way_are_listed_again_at_once(tmp_path: Path, calls: list[Call]) -> None:
    answers = (page("a", more="next"), says(410, "Expired"), page("b", "c"))
    async with scripted(tmp_path / "config", *answers, calls=calls) as cluster:
        listed = await cluster.list(CONFIG_MAP)
    assert [item["metadata"]["name"] for item in listed] == ["b", "c"]


@pytest.mark.parametrize(
    "lost",
    [
        says(410, "Expired"),
        stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}),
    ],
    ids=["answer", "event"],
)
async def test_a_watch_that_lost_its_place_tells_what_it_missed(
    tmp_path: Path, calls: list[Call], lost: Handler
) -> None:
    long = "x" * 5_000_000
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "6"}}}
    added = {"type": "ADDED", "object": {"metadata": {"name": "c", "uid": "c", "resourceVersion": "7"}, "data": long}}
    answers = (page("a", "b"), lost, page("b"), stream(bookmark, added))
    async with scripted(tmp_path / "config", *answers, calls=calls) as cluster:
        watch = cluster.watch(CONFIG_MAP)
        async with asyncio.timeout(20):
            events = [await anext(watch) for _ in range(4)]
    told = [(event.type.value, event.object["metadata"]["name"]) for event in events]
    assert told == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("ADDED", "c")]
    assert len(events[-1].object["data"]) == len(long), "objects larger than any read buffer arrive whole"


async def test_a_watch_outlives_refusals_once_it_has_begun(tmp_path: Path, calls: list[Call]) -> None:
    added = {"type": "ADDED", "object": {"metadata": {"name": "b", "uid": "b", "resourceVersion": "7"}}}
    refused = says(403, "Forbidden")
    answers = (page("a"), refused, refused, refused, page("a"), stream(added))
    async with scripted(tmp_path / "config", *answers, calls=calls) as cluster:
        watch = cluster.watch(CONFIG_MAP)
        async with asyncio.timeout(30):
            told = [(await anext(watch)).object["metadata"]["name"] for _ in range(2)]
    assert told == ["a", "b"]
    assert [(call.verb, call.code) for call in calls] == [
        ("list", 200),
        *[("watch", 403)] * 3,
        ("list", 200),
        ("watch", 200),
    ], "after three failures the version is given up"
