"""The node's cache: bounds, order of eviction, pods at one time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError, ResourceError
from enginewright_serving.engine_cache import EngineCache

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def use(cache: EngineCache, digest: str, size: int, at: float) -> None:
    with cache.entry(digest) as entry:
        (entry / "file").write_bytes(b"x" * size)
    os.utime(entry, (at, at))


def kept(folder: Path) -> set[str]:
    return {path.name[0] for path in folder.iterdir() if path.name != "locks"}


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=100)
    use(cache, A, 40, at=1)
    use(cache, B, 40, at=2)
    use(cache, A, 40, at=3)  # used again
    use(cache, C, 40, at=4)
    assert kept(tmp_path) == {"a", "c"}


def test_one_larger_than_the_bound_stays_alone(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=100)
    use(cache, A, 40, at=1)
    use(cache, B, 400, at=2)
    assert kept(tmp_path) == {"b"}


def test_what_another_pod_uses_is_not_evicted(tmp_path: Path) -> None:
    busy, other = EngineCache(tmp_path, limit_bytes=10), EngineCache(tmp_path, limit_bytes=10)
    with busy.entry(A) as entry:
        (entry / "file").write_bytes(b"x" * 40)
        use(other, B, 40, at=2)
        assert kept(tmp_path) == {"a", "b"}
    use(other, C, 40, at=3)
    assert kept(tmp_path) == {"c"}


def test_an_entry_belongs_to_one_pod_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0

    def admit() -> None:
        nonlocal inside, most
        with EngineCache(tmp_path, 10).entry(A):
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.01)
            inside -= 1

    pods = [threading.Thread(target=admit) for _ in range(8)]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()
    assert most == 1


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, "a" * 63])
def test_only_digests_name_entries(tmp_path: Path, digest: str) -> None:
    with pytest.raises(DeterministicError, match="64 hex"), EngineCache(tmp_path, 10).entry(digest):
        pass


def test_a_download_that_cannot_fit_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        EngineCache(tmp_path, 10).require_space(2**60)
    assert caught.value.reason == "DiskFull"


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeterministicError, match="file"):
        EngineCache(tmp_path / "file", 10)
