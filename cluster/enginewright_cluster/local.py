"""The cluster of one machine: objects in SQLite, shared by the processes of the local control plane."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from enginewright_api.names import FIELD_MANAGER

from .change_signal import ChangeSignal
from .log_files import read_log
from .objects.following import Following
from .objects.labels import matches
from .objects.metadata import normal, shown
from .objects.semantics import Admission, Objects
from .port import POD, Kind, NotFoundError, Object, Ref, UnavailableError, WatchEvent
from .sqlite_rows import SqliteRows, open_file, transaction, translated

T = TypeVar("T")

DATABASE = "objects.sqlite3"
_RETRY_SECONDS = 1.0

logger = logging.getLogger("enginewright.cluster.local")


def _admit_ours(manifest: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    # Imported at the first write: a third of a second that reading does without.
    from enginewright_api.validation import admit

    return admit(manifest, old)


class LocalCluster:
    """Implements the Cluster port over `state_dir/objects.sqlite3`. Any number of processes may use one file.

    Namespaces need not be created. SQLite runs in a thread of its own, one call at a time.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        admit: Admission = _admit_ours,
    ) -> None:
        """`state_dir` is made, for its owner only, at the first call."""
        self.state_dir = state_dir
        self._path = state_dir / DATABASE
        self._now = now
        self._admit = admit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="enginewright-sqlite")
        self._connection: sqlite3.Connection | None = None
        self._signal = ChangeSignal(self._path)

    async def get(self, ref: Ref) -> Object:
        """Fresh read. Raises NotFoundError."""
        return await self._read(lambda rows: self._objects(rows).get(ref))

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Sequence[Object]:
        """Objects of a kind by namespace and name."""
        items = await self._read(lambda rows: rows.select(kind, namespace))
        return [item for item in items if matches(labels, item) and name in (None, item["metadata"]["name"])]

    async def apply(self, manifest: Object, *, field_manager: str = FIELD_MANAGER, force: bool = True) -> Object:
        """Server-side apply."""
        return await self._write(lambda objects: objects.apply(manifest, manager=field_manager, force=force))

    async def create(self, manifest: Object) -> Object:
        """Plain create."""
        return await self._write(lambda objects: objects.create(manifest, manager=FIELD_MANAGER))

    async def patch_status(
        self,
        ref: Ref,
        status: Mapping[str, Any],
        *,
        uid: str | None = None,
        version: str | None = None,
        field_manager: str = FIELD_MANAGER,
    ) -> Object:
        """Merge patch of the status subresource; ownership of status fields is not recorded here."""
        return await self._write(lambda objects: objects.patch_status(ref, status, uid=uid))

    async def patch(self, ref: Ref, patch: Mapping[str, Any], *, uid: str | None = None) -> Object:
        """Merge patch of the object."""
        return await self._write(lambda objects: objects.patch(ref, patch, uid=uid, manager=FIELD_MANAGER))

    async def scale(self, ref: Ref, replicas: int) -> None:
        """Write spec.replicas."""
        await self._write(lambda objects: objects.scale(ref, replicas, manager=FIELD_MANAGER))

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        """Background deletion."""
        await self._write(lambda objects: objects.delete(ref, uid=uid))

    async def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        present: Callable[[], None] | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Endless stream of changes by any process, the present first."""
        following = Following(labels)
        version: int | None = None
        wake = self._signal.subscribe()
        try:
            while True:
                try:
                    news = await self._read(_news(kind, namespace, version))
                except UnavailableError as error:
                    logger.warning("watch of %s: %s; trying again", kind.plural, error)
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                version = news.version
                for event in news.events(following):
                    yield event
                if present is not None:
                    present()
                    present = None
                await wake.wait()
        finally:
            self._signal.unsubscribe(wake)

    async def logs(self, ref: Ref, *, container: str | None = None, tail_lines: int | None = None) -> str:
        """What the pod's processes wrote; kept for a while after the pod is gone. The first container by default."""
        ref = normal(ref)
        if container is None:
            pod = await self._read(lambda rows: rows.read(Ref(POD, ref.name, ref.namespace)))
            container = pod["spec"]["containers"][0]["name"] if pod is not None else None
        text = await asyncio.to_thread(
            read_log, self.state_dir, ref.namespace or "", ref.name, container, tail_lines=tail_lines
        )
        if text is None:
            raise NotFoundError("NotFound", f"{shown(ref)} has no logs here: it does not exist or has not started")
        return text

    async def close(self) -> None:
        """Close the file; the last process to do so folds the write-ahead log into it."""
        self._signal.stop()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _read(self, act: Callable[[SqliteRows], T]) -> T:
        return await self._in_thread(act, write=False)

    async def _write(self, act: Callable[[Objects], T]) -> T:
        return await self._in_thread(lambda rows: act(self._objects(rows)), write=True)

    async def _in_thread(self, act: Callable[[SqliteRows], T], *, write: bool) -> T:
        def run() -> T:
            with translated(self._path):
                if self._connection is None:
                    self._connection = open_file(self._path)
                with transaction(self._connection, write=write) as rows:
                    return act(rows)

        result = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        if write:
            self._signal.notify()
        return result

    def _objects(self, rows: SqliteRows) -> Objects:
        return Objects(rows, now=self._now, new_uid=lambda: str(uuid.uuid4()), admit=self._admit)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True, slots=True)
class _News:
    """What happened to a kind between two versions: changes, or a fresh list where they are trimmed or not wanted."""

    version: int
    changes: Sequence[tuple[bool, Object]] = ()
    listed: Sequence[Object] | None = None

    def events(self, following: Following) -> Iterator[WatchEvent]:
        """As one watcher sees it."""
        if self.listed is not None:
            yield from following.relisted(self.listed)
        for deleted, item in self.changes:
            event = following.deleted(item) if deleted else following.changed(item)
            if event is not None:
                yield event


def _news(kind: Kind, namespace: str | None, since: int | None) -> Callable[[SqliteRows], _News]:
    def read(rows: SqliteRows) -> _News:
        version = rows.version
        changes = rows.changes_after(since, kind, namespace) if since is not None and since != version else None
        if changes is not None or since == version:
            return _News(version, changes or ())
        return _News(version, listed=rows.select(kind, namespace))

    return read
