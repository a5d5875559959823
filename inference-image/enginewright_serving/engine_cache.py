"""Engines kept on the node by artifact digest, shared by its pods, bounded in size, least recently used out first.

    <folder>/<artifact digest>/manifest.json, model.sig, <sha256 of a file> ...
    <folder>/locks/<two hex digits>, locks/eviction

Safe under concurrent pods: whoever uses or changes an entry holds its lock (flock: a dead pod's lock is gone with it).
Content is checked each time it is used, so a damaged cache costs a download, never a wrong engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from enginewright_api.errors import DeterministicError, ResourceError
from enginewright_serving.events import log

_LOCKS = "locks"


class EngineCache:
    """`limit_bytes` bounds all entries together; one larger than that is still kept while it is the newest."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        try:
            (folder / _LOCKS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeterministicError("CacheUnusable", f"{folder}: {error.strerror}; mount a writable folder") from error

    @contextlib.contextmanager
    def entry(self, digest: str) -> Iterator[Path]:
        """Folder of one artifact, exclusively ours inside the `with`. Older entries may go when it is left."""
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise DeterministicError("InvalidDigest", f"{digest[:80]!r}: needs 64 hex digits")
        with self._locked(digest[:2], wait=True):
            entry = self._folder / digest
            entry.mkdir(exist_ok=True)
            yield entry
            os.utime(entry)
        self._evict(keep=digest)

    def require_space(self, needed_bytes: int) -> None:
        """ResourceError DiskFull when a download cannot fit."""
        free = shutil.disk_usage(self._folder).free
        if needed_bytes > free:
            raise ResourceError(
                "DiskFull",
                f"{self._folder}: {needed_bytes} bytes needed, {free} free; free some space or enlarge the volume",
            )

    def _evict(self, *, keep: str) -> None:
        with self._locked("eviction", wait=True):
            entries = sorted(self._entries(), key=lambda entry: entry.stat().st_mtime)
            sizes = {entry: _size_bytes(entry) for entry in entries}
            total = sum(sizes.values())
            for entry in entries:
                if total <= self._limit_bytes:
                    return
                if entry.name == keep:
                    continue
                with self._locked(entry.name[:2], wait=False) as ours:
                    if ours:
                        shutil.rmtree(entry, ignore_errors=True)
                        total -= sizes[entry]
                        log("evicted", artifact=entry.name, size_bytes=sizes[entry])

    def _entries(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.is_dir() and len(path.name) == 64]

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        handle = os.open(self._folder / _LOCKS / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(handle)


def _size_bytes(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir() if file.is_file())
