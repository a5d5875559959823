"""The store in a folder."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_store import NotInStoreError, Store, open_store
from enginewright_store.retrying import RetryPolicy


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "with space").as_uri())


def test_what_was_put_is_read(store: Store) -> None:
    assert store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert (store.read("a/b"), store.size("a/b"), store.exists("a"), store.exists("a/c")) == (b"two", 3, False, False)


def test_missing_content_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotInStoreError, match="a/b"):
        store.read("a/b")
    with pytest.raises(NotInStoreError, match="a/b"):
        store.download("a/b", tmp_path / "out", size=1, sha256="0" * 64)


def test_of_many_conditional_writers_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.put("manifest", str(n).encode(), if_absent=True), range(32)))
    assert won.count(True) == 1
    assert store.read("manifest") == str(won.index(True)).encode()


def test_listing_is_sorted_and_hides_partial_writes(store: Store, tmp_path: Path) -> None:
    for path in ("b/2", "a/1", "b/1", "bb/1"):
        store.put(path, b"")
    (tmp_path / "with space" / "b" / ".partial-123").write_bytes(b"cut")
    assert store.list() == ["a/1", "b/1", "b/2", "bb/1"]
    assert store.list("b") == store.list("b/") == ["b/1", "b/2"]
    assert store.list("absent") == []


def test_delete_takes_the_folder_and_nothing_beside_it(store: Store) -> None:
    for path in ("b/1", "b/c/2", "bb/1"):
        store.put(path, b"")
    store.delete("b")
    store.delete("never-there")
    assert store.list() == ["bb/1"]


def test_no_partial_file_stays_behind(store: Store, tmp_path: Path) -> None:
    store.put("x", b"1", if_absent=True)
    store.put("x", b"2", if_absent=True)
    with pytest.raises(DeterministicError, match="no such file"):
        store.upload(tmp_path / "absent", "y")
    assert [path.name for path in (tmp_path / "with space").iterdir()] == ["x"]


def test_other_users_may_read_what_was_stored(store: Store, tmp_path: Path) -> None:
    store.put("x", b"1")
    assert (tmp_path / "with space" / "x").stat().st_mode & 0o777 == 0o644


def test_upload_and_download_carry_large_files(store: Store, tmp_path: Path) -> None:
    data = os.urandom(20 * 2**20 + 7)  # more than one chunk
    (tmp_path / "in").write_bytes(data)
    store.upload(tmp_path / "in", "big")
    store.download("big", tmp_path / "deep/out", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert (tmp_path / "deep/out").read_bytes() == data


def test_transient_failures_are_repeated_with_growing_pauses_then_told() -> None:
    pauses: list[float] = []
    policy = RetryPolicy(attempts=4, first_pause_seconds=1.0, longest_pause_seconds=2.0, sleep=pauses.append)
    calls = 0

    def fails() -> None:
        nonlocal calls
        calls += 1
        raise TransientError("StoreUnavailable", f"attempt {calls}")

    with pytest.raises(TransientError, match="attempt 4"):
        policy.run(fails)
    assert [0.5 <= pauses[0] <= 1, 1 <= pauses[1] <= 2, 1 <= pauses[2] <= 2] == [True] * 3


def test_what_cannot_be_helped_is_not_repeated() -> None:
    calls = 0

    def refuse() -> None:
        nonlocal calls
        calls += 1
        raise DeterministicError("StoreAccessDenied", "no")

    with pytest.raises(DeterministicError):
        RetryPolicy().run(refuse)
    assert calls == 1
