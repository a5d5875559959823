"""The store goes wrong while artifacts are published and fetched: nothing is seen in part, nothing wrong is taken."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import pytest

from enginewright_api.errors import ResourceError, TransientError
from enginewright_api.manifest import Manifest
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import OPTIMIZED_MODEL, Ref
from enginewright_operator.shell import store_lookup
from enginewright_operator.shell.operator import Operator
from enginewright_store import Credentials, Store, open_store, store
from enginewright_store.artifact import describe_files, file_path, publish, read_manifest
from enginewright_store.retrying import RetryPolicy
from tests.faults.link import Link, Way
from tests.s3.fixtures import S3Server
from tests.scenarios.world import Shifted, World
from tests.serving.artifacts import manifest_of

LARGE_BYTES = 200_000
LOOK_SECONDS = 0.3
ONCE = RetryPolicy(attempts=1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an artifact."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "weights.bin").write_bytes(os.urandom(LARGE_BYTES))
    (folder / "engine.json").write_text(
        '{"task":"Embedding","backend":"OpenVINO","limits":{},"runtimePackage":"openvino","runtimeVersion":"1"}'
    )
    return folder


@pytest.fixture
def link(s3_server: S3Server) -> Iterator[Link]:
    address = urlsplit(s3_server.endpoint_url)
    with Link((address.hostname or "", address.port or 0)) as made:
        yield made


@pytest.fixture
def prefix() -> str:
    return token_hex(4)


@pytest.fixture
def direct(s3_server: S3Server, prefix: str) -> Store:
    """The store as somebody with a good connection sees it."""
    return _bucket(s3_server, s3_server.endpoint_url, prefix)


@pytest.fixture
def through(s3_server: S3Server, prefix: str, link: Link, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store behind the link. What takes half a minute elsewhere takes half a second here."""
    monkeypatch.setattr(store, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(store, "CONNECT_SECONDS", 0.5)
    return _bucket(s3_server, f"http://127.0.0.1:{link.port}", prefix)


def _bucket(server: S3Server, endpoint: str, prefix: str) -> Store:
    credentials = Credentials(
        server.access_key_id, server.secret_access_key, endpoint_url=endpoint, region=server.region
    )
    return open_store(f"s3://{server.bucket}/{prefix}", credentials=credentials, retry=ONCE)


OUTAGES: dict[str, dict[str, Any]] = {
    "refused": {"way": Way.REFUSED},
    "silent": {"way": Way.SILENT},
    "cut": {"way": Way.CUT, "answer_bytes": 40},
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_artifact_is_published_whole_or_not_at_all(
    link: Link, through: Store, direct: Store, engine: Path, outage: str
) -> None:
    manifest = manifest_of(engine)
    with link.going(**OUTAGES[outage]), pytest.raises(TransientError):
        publish(through, manifest, engine)
    assert read_manifest(direct, manifest.key) is None
    published = publish(through, manifest, engine)
    assert published.ours
    _is_whole(direct, manifest, published.digest)


def test_a_manifest_whose_reply_is_lost_is_our_own(
    link: Link, through: Store, direct: Store, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and the next attempt finds it: the conditional write does not lose against itself."""
    manifest = manifest_of(engine)
    put = Store.put

    def losing_the_reply(self: Store, path: str, data: bytes, **options: Any) -> bool:
        if not options.get("if_absent"):
            return put(self, path, data, **options)
        with link.going(Way.CUT, answer_bytes=40):  # "100 Continue" and the beginning of what it comes to
            return put(self, path, data, **options)

    monkeypatch.setattr(Store, "put", losing_the_reply)
    with pytest.raises(TransientError):
        publish(through, manifest, engine)
    monkeypatch.undo()
    found = read_manifest(direct, manifest.key)
    assert found is not None, "the write happened"
    published = publish(direct, manifest, engine)
    assert published.digest == found[1]
    _is_whole(direct, manifest, published.digest)


@pytest.mark.parametrize("outage", [*OUTAGES, "cut late"])
def test_a_file_is_fetched_whole_or_not_at_all(
    link: Link, through: Store, direct: Store, engine: Path, outage: str
) -> None:
    tmp_path = engine.with_name(f"fetched {outage}")
    manifest = manifest_of(engine)
    publish(direct, manifest, engine)
    file = next(file for file in manifest.files if file.path == "weights.bin")
    target, path = tmp_path / "weights.bin", file_path(manifest.key, file)
    way = OUTAGES.get(outage) or {"way": Way.CUT, "answer_bytes": LARGE_BYTES // 2}
    with link.going(**way), pytest.raises(TransientError):
        through.download(path, target, size=file.size, sha256=file.sha256)
    assert not target.exists()
    through.download(path, target, size=file.size, sha256=file.sha256)
    assert target.read_bytes() == (engine / "weights.bin").read_bytes()


def test_a_slow_store_is_waited_for(link: Link, through: Store, direct: Store, engine: Path, tmp_path: Path) -> None:
    """As long as anything comes: the file takes longer than the silence that would count as an outage."""
    manifest = manifest_of(engine)
    publish(direct, manifest, engine)
    file = next(file for file in manifest.files if file.path == "weights.bin")
    with link.going(Way.SLOW, bytes_per_second=LARGE_BYTES):
        through.download(file_path(manifest.key, file), tmp_path / "weights.bin", size=file.size, sha256=file.sha256)
    assert (tmp_path / "weights.bin").stat().st_size == LARGE_BYTES


async def test_a_store_that_hangs_holds_up_no_other_model(
    link: Link, s3_server: S3Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More builds ask it than the operator has workers; a model that serves is scaled all the same."""
    monkeypatch.setattr(store_lookup, "LOOK_SECONDS", LOOK_SECONDS)
    lookup = store_lookup.ArtifactStoreLookup(_bucket(s3_server, f"http://127.0.0.1:{link.port}", prefix))
    cluster = FakeCluster()
    world = World(cluster, clock=Shifted())
    await world.give_class()
    await world.apply("serving")
    await world.settle()
    running = asyncio.ensure_future(Operator(cluster, lookup, world.settings, world.clock, workers=4).run())
    with link.going(Way.SILENT):
        for number in range(12):
            await world.apply(f"new-{number}", engine={"limits": {"maxInputTokens": 64 + number}})
        await asyncio.sleep(0.5)
        await cluster.scale(Ref(OPTIMIZED_MODEL, "serving", "default"), 3)
        async with asyncio.timeout(10):
            while (await world.model("serving"))["status"]["replicas"] != 3:
                await world.step()
                await asyncio.sleep(0.02)
        assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_disk_that_fills_up_while_publishing_leaves_nothing_in_part(engine: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    (tmp_path / "disk").mkdir()
    _mount(tmp_path / "disk", LARGE_BYTES // 2)
    try:
        disk = open_store((tmp_path / "disk" / "store").as_uri(), retry=ONCE)
        manifest = manifest_of(engine)
        with pytest.raises(ResourceError) as caught:
            publish(disk, manifest, engine)
        assert caught.value.reason == "DiskFull"
        assert str(tmp_path / "disk") in caught.value.message
        assert "MiB free" in caught.value.message
        assert read_manifest(disk, manifest.key) is None
        left = [file for file in (tmp_path / "disk").rglob("*") if file.is_file()]
        assert {file.name for file in left} <= {file.sha256 for file in manifest.files}, "no part stays behind"
        _mount(tmp_path / "disk", 10 * LARGE_BYTES, "remount")
        published = publish(disk, manifest, engine)
        _is_whole(disk, manifest, published.digest)
    finally:
        subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def _mount(folder: Path, size_bytes: int, *options: str) -> None:
    given = ",".join([*options, f"size={size_bytes}"])
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", given, "none", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")


def _is_whole(place: Store, manifest: Manifest, digest: str) -> None:
    """Everything that the manifest lists is there, byte for byte, and nothing else under its key."""
    found = read_manifest(place, manifest.key)
    assert found == (manifest, digest)
    for file in manifest.files:
        assert place.size(file_path(manifest.key, file)) == file.size
    assert len(place.list(f"artifacts/{manifest.key}")) == len(manifest.files) + 1


def test_the_fixture_is_an_artifact(engine: Path) -> None:
    assert [file.path for file in describe_files(engine)] == ["engine.json", "weights.bin"]
