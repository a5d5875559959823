"""A store in a folder (file://): atomic writes by rename, conditional ones by link(2), which also holds on NFS."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from enginewright_api.errors import DeterministicError, ResourceError, TransientError
from enginewright_store.medium import Entry, NotInStoreError

_PARTIAL_PREFIX = ".partial-"
_TRIES_AGAINST_DELETION = 10
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Folder:
    """Medium in a folder of this machine or of a mounted volume."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        with self._translated(path):
            return self._at(path).read_bytes()

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        with self._translated(path), self._at(path).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def put(self, path: str, data: bytes) -> None:
        with self._translated(path), self._partial(path) as partial:
            _write(partial, data)
            partial.replace(self._at(path))

    def put_new(self, path: str, data: bytes) -> bool:
        with self._translated(path), self._partial(path) as partial:
            _write(partial, data)
            try:
                os.link(partial, self._at(path))
            except FileExistsError:
                return False
            return True

    def upload(self, local: Path, path: str) -> None:
        with self._translated(path), self._partial(path) as partial:
            shutil.copyfile(local, partial)
            partial.replace(self._at(path))

    def size(self, path: str) -> int | None:
        with self._translated(path):
            try:
                found = self._at(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return found.st_size if stat.S_ISREG(found.st_mode) else None

    def list(self, prefix: str) -> list[str]:
        top = self._at(prefix) if prefix else self._root
        with self._translated(prefix):
            return sorted(
                file.relative_to(self._root).as_posix()
                for file in top.rglob("*")
                if file.is_file() and not file.name.startswith(_PARTIAL_PREFIX)
            )

    def entries(self, prefix: str) -> Sequence[Entry]:
        found = []
        for path in self.list(prefix):
            with self._translated(path), contextlib.suppress(FileNotFoundError):  # gone since it was listed
                seen = self._at(path).stat()
                found.append(Entry(path, seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC)))
        return found

    def delete(self, prefix: str) -> None:
        with self._translated(prefix):
            target = self._at(prefix)
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            self._drop_empty(target.parent)

    def _drop_empty(self, folder: Path) -> None:
        """A bucket has no empty folders either. A folder that is being written to is not empty, and stays."""
        while folder != self._root and folder.is_relative_to(self._root):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _at(self, path: str) -> Path:
        return self._root / path

    @contextlib.contextmanager
    def _partial(self, path: str) -> Iterator[Path]:
        """A file beside the target, gone afterwards unless it was renamed into place."""
        handle, name = self._new_partial(self._at(path).parent)
        os.fchmod(handle, 0o644)  # mkstemp's 0600 would hide artifacts from pods that run as another user
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    def _new_partial(self, parent: Path) -> tuple[int, str]:
        """Who deletes beside us takes empty folders away: between making one and using it, too."""
        for _ in range(_TRIES_AGAINST_DELETION):
            parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return tempfile.mkstemp(prefix=_PARTIAL_PREFIX, dir=parent)
        raise TransientError("StoreUnavailable", f"{parent}: is removed again and again while it is written to")

    def _full(self, path: str) -> str:
        """A quota can be used up where the disk has room, so both are said: what was written and what is free."""
        free = ""
        with contextlib.suppress(OSError):
            free = f" (its disk has {shutil.disk_usage(self._root).free / 2**20:.0f} MiB free)"
        return f"the store {self._root} has no room{free}; free some or enlarge it; it was writing {path}"

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotInStoreError(path, str(self._root)) from error
        except PermissionError as error:
            raise DeterministicError(
                "StoreAccessDenied", f"{self._at(path)}: permission denied; give this user access to the folder"
            ) from error
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise ResourceError("DiskFull", self._full(path)) from error
            raise TransientError("StoreUnavailable", f"{self._at(path)}: {error}") from error


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
