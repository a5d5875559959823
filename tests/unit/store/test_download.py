"""Downloads that are cut, damaged or resumed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_store import Store
from enginewright_store.folder import Folder
from enginewright_store.retrying import RetryPolicy

DATA = bytes(range(256)) * 4096 * 40  # 40 MiB: three chunks
SHA256 = hashlib.sha256(DATA).hexdigest()


class Cut(Folder):
    """A folder whose reads break off, as a network does."""

    def __init__(self, root: Path, cuts: int) -> None:
        super().__init__(root)
        self.cuts = cuts
        self.offsets: list[int] = []

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        self.offsets.append(start)
        if start and self.cuts:
            self.cuts -= 1
            raise TransientError("StoreUnavailable", "connection reset")
        return super().read_range(path, start, stop)


def store_of(medium: Folder, attempts: int = 4) -> Store:
    return Store("file:///test", medium, RetryPolicy(attempts=attempts, sleep=lambda _: None))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(DATA)
    return tmp_path / "root"


def test_a_cut_download_goes_on_where_it_ended(root: Path, tmp_path: Path) -> None:
    medium = Cut(root, cuts=2)
    store_of(medium).download("file", tmp_path / "out", size=len(DATA), sha256=SHA256)
    assert (tmp_path / "out").read_bytes() == DATA
    assert medium.offsets.count(0) == 1


def test_nothing_appears_until_all_is_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        store_of(Cut(root, cuts=99), attempts=2).download("file", tmp_path / "out", size=len(DATA), sha256=SHA256)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.part").stat().st_size > 0


@pytest.mark.parametrize("leftover", [b"not the beginning", b"x" * (len(DATA) + 1), DATA[:1000]])
def test_whatever_part_an_earlier_attempt_left_the_result_is_right(root: Path, tmp_path: Path, leftover: bytes) -> None:
    (tmp_path / "out.part").write_bytes(leftover)
    store_of(Folder(root)).download("file", tmp_path / "out", size=len(DATA), sha256=SHA256)
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(
    ("stored", "says"), [(DATA[:-1] + b"!", "sha256 is"), (DATA[: len(DATA) // 2], "ends after"), (b"", "ends after")]
)
def test_damaged_content_is_refused_and_named(root: Path, tmp_path: Path, stored: bytes, says: str) -> None:
    (root / "file").write_bytes(stored)
    with pytest.raises(DeterministicError, match=says) as caught:
        store_of(Folder(root)).download("file", tmp_path / "out", size=len(DATA), sha256=SHA256)
    assert caught.value.reason == "CorruptedArtifact"
    assert "file" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_an_empty_file_is_a_file(root: Path, tmp_path: Path) -> None:
    (root / "file").write_bytes(b"")
    store_of(Folder(root)).download("file", tmp_path / "out", size=0, sha256=hashlib.sha256(b"").hexdigest())
    assert (tmp_path / "out").read_bytes() == b""
