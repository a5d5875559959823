"""The store in a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_store import Credentials, NotInStoreError, Store, open_store
from enginewright_store.artifact import file_path, read_manifest
from enginewright_store.garbage import Retention, collect
from enginewright_store.retrying import RetryPolicy
from enginewright_store.signing import generate_key
from tests.s3.fixtures import S3Server
from tests.serving.artifacts import published


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A fresh prefix, reached by the standard AWS variables."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{s3_server.bucket}/{secrets.token_hex(4)}/engines")


def test_content_comes_back_below_the_prefix(store: Store, s3_server: S3Server) -> None:
    store.put("a/b", b"one")
    store.put("ab", b"two")
    assert (store.read("a/b"), store.size("a/b"), store.exists("a")) == (b"one", 3, False)
    assert store.list() == ["a/b", "ab"]
    assert store.list("a") == ["a/b"]
    store.delete("a")
    assert store.list() == ["ab"]
    assert store.list("absent") == []


def test_of_many_conditional_writers_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda n: store.put("manifest", str(n).encode(), if_absent=True), range(12)))
    assert won.count(True) == 1
    assert store.read("manifest") == str(won.index(True)).encode()


def test_large_files_travel_in_parts(store: Store, tmp_path: Path) -> None:
    data = os.urandom(60 * 2**20)
    (tmp_path / "in").write_bytes(data)
    store.upload(tmp_path / "in", "big")
    (tmp_path / "out.part").write_bytes(data[: 7 * 2**20])  # a cut attempt
    store.download("big", tmp_path / "out", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert (tmp_path / "out").read_bytes() == data


def test_missing_content_and_missing_buckets_differ(store: Store, s3_server: S3Server) -> None:
    with pytest.raises(NotInStoreError, match="a/b"):
        store.read("a/b")
    absent = open_store("s3://no-such-bucket/x")
    for act in (lambda: absent.read("a"), lambda: absent.put("a", b""), lambda: absent.size("a")):
        with pytest.raises(DeterministicError, match="no-such-bucket") as caught:
            act()
        assert caught.value.reason == "StoreNotFound"


@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_wrong_credentials_are_not_retried(s3_server: S3Server, wrong: str) -> None:
    given = {"access_key_id": s3_server.access_key_id, "secret_access_key": s3_server.secret_access_key, wrong: "bad"}
    credentials = Credentials(endpoint_url=s3_server.endpoint_url, region=s3_server.region, **given)
    refused = open_store(f"s3://{s3_server.bucket}", credentials=credentials)
    for act in (lambda: refused.put("a", b"", if_absent=True), lambda: refused.read("a")):
        with pytest.raises(DeterministicError) as caught:
            act()
        assert caught.value.reason == "StoreAccessDenied"
        assert s3_server.secret_access_key not in caught.value.message


def test_a_server_that_is_gone_is_a_transient_failure() -> None:
    pauses: list[float] = []
    nobody = Credentials("id", "secret", endpoint_url="http://127.0.0.1:1", region="us-east-1")
    store = open_store("s3://bucket", credentials=nobody, retry=RetryPolicy(attempts=2, sleep=pauses.append))
    with pytest.raises(TransientError) as caught:
        store.read("a")
    assert caught.value.reason == "StoreUnavailable"
    assert len(pauses) == 1


def test_listings_tell_sizes_and_times(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    store.put("a/b", b"one")
    store.put("ab", b"three")
    assert [(entry.path, entry.size_bytes) for entry in store.entries()] == [("a/b", 3), ("ab", 5)]
    assert before < store.entries("a")[0].modified < datetime.now(UTC) + timedelta(seconds=5)
    assert store.entries("absent") == []


def test_garbage_goes_and_what_is_used_stays(store: Store, tmp_path: Path) -> None:
    """Two artifacts and a stage result; one artifact comes into use while it is being removed."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "openvino.bin").write_bytes(b"weights")
    (tmp_path / "engine.json").write_text(
        '{"task":"Embedding","backend":"OpenVINO","limits":{},"runtimePackage":"openvino","runtimeVersion":"1"}'
    )
    for key in ("a" * 64, "b" * 64):
        published(store, tmp_path, generate_key(tmp_path / f"{key[:4]}.pem"), key=key)
    store.put(f"stages/{'c' * 64}/stage.json", b"{}")
    readings: list[int] = []

    def used() -> frozenset[str]:
        readings.append(len(readings))
        return frozenset({"a" * 16}) if len(readings) > 1 else frozenset()

    later = datetime.now(UTC) + timedelta(days=20)
    done = collect(store, used, Retention(artifacts=0), holder="test", clock=lambda: later)
    assert [holding.key[0] for holding in done.removed] == ["c"], "artifacts are only noted at first"
    readings.clear()
    later += timedelta(days=2)
    done = collect(store, used, Retention(artifacts=0), holder="test", clock=lambda: later)
    assert [holding.key[0] for holding in done.restored] == ["a"]
    assert [holding.key[0] for holding in done.removed] == ["b"]
    assert {path.split("/")[1][0] for path in store.list() if not path.startswith("garbage")} == {"a"}
    found = read_manifest(store, "a" * 64)
    assert found is not None
    for file in found[0].files:
        store.download(file_path("a" * 64, file), tmp_path / "out", size=file.size, sha256=file.sha256)
