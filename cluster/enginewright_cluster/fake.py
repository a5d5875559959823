"""The cluster in memory: deterministic, with faults on demand. For state-machine tests and for trying things out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from enginewright_api.names import FIELD_MANAGER
from enginewright_api.validation import admit as admit_ours

from .faults import READS, Call, Fault, FaultSource, Script
from .objects.copying import copied
from .objects.following import Following, Key, key_of
from .objects.labels import matches
from .objects.metadata import normal, ref_of
from .objects.semantics import Admission, Objects
from .port import ConflictError, EventType, Kind, Object, Ref, UnavailableError, WatchEvent, kind_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Write:
    """A write that reached the cluster. `changed` is False for one that left everything as it was."""

    verb: str
    ref: Ref
    body: Mapping[str, Any] | None
    changed: bool


class FakeCluster:
    """Implements the Cluster port. Not safe for threads; calls never suspend, so each is atomic."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        admit: Admission = admit_ours,
        faults: FaultSource | None = None,
    ) -> None:
        """`faults` is asked before every call; replace the attribute at any time."""
        self.faults: FaultSource = faults or Script()
        self.writes: list[Write] = []
        self.pod_logs: dict[tuple[str, str], str] = {}
        """Log text by namespace and pod name, for `logs()`."""
        self._rows = _Rows(self._announce)
        self._watchers: list[_Watcher] = []
        self._objects = Objects(self._rows, now=now, new_uid=self._rows.next_uid, admit=admit)

    async def get(self, ref: Ref) -> Object:
        """Fresh read. Raises NotFoundError."""
        return self._call(Call("get", ref.kind, normal(ref)), lambda: self._objects.get(ref))

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Sequence[Object]:
        """Objects of a kind by namespace and name."""
        return self._call(Call("list", kind), lambda: self._listed(kind, namespace, labels, name))

    async def apply(self, manifest: Object, *, field_manager: str = FIELD_MANAGER, force: bool = True) -> Object:
        """Server-side apply."""
        call = Call("apply", kind_of(manifest), ref_of(manifest), copied(manifest))
        return self._call(call, lambda: self._objects.apply(manifest, manager=field_manager, force=force))

    async def create(self, manifest: Object) -> Object:
        """Plain create."""
        named = bool(manifest.get("metadata", {}).get("name"))
        call = Call("create", kind_of(manifest), ref_of(manifest) if named else None, copied(manifest))
        return self._call(call, lambda: self._objects.create(manifest, manager=FIELD_MANAGER))

    async def patch_status(
        self,
        ref: Ref,
        status: Mapping[str, Any],
        *,
        uid: str | None = None,
        version: str | None = None,
        field_manager: str = FIELD_MANAGER,
    ) -> Object:
        """Merge patch of the status subresource."""
        call = Call("patch_status", ref.kind, normal(ref), copied(dict(status)))
        return self._call(call, lambda: self._objects.patch_status(ref, status, uid=uid))

    async def patch(self, ref: Ref, patch: Mapping[str, Any], *, uid: str | None = None) -> Object:
        """Merge patch of the object."""
        call = Call("patch", ref.kind, normal(ref), copied(dict(patch)))
        return self._call(call, lambda: self._objects.patch(ref, patch, uid=uid, manager=FIELD_MANAGER))

    async def scale(self, ref: Ref, replicas: int) -> None:
        """Write spec.replicas."""
        call = Call("scale", ref.kind, normal(ref), {"spec": {"replicas": replicas}})
        self._call(call, lambda: self._objects.scale(ref, replicas, manager=FIELD_MANAGER))

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        """Background deletion."""
        self._call(Call("delete", ref.kind, normal(ref)), lambda: self._objects.delete(ref, uid=uid))

    async def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        present: Callable[[], None] | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Endless stream of changes, the present first. Registers at the first `anext`."""
        watcher = _Watcher(kind, namespace, Following(labels))
        watcher.events.extend(watcher.following.relisted(self._listed(kind, namespace, None)))
        self._watchers.append(watcher)
        try:
            while True:
                while watcher.events:
                    yield copied(watcher.events.popleft())
                if present is not None:
                    present()
                    present = None
                watcher.arrived.clear()
                await watcher.arrived.wait()
        finally:
            self._watchers.remove(watcher)

    async def logs(self, ref: Ref, *, container: str | None = None, tail_lines: int | None = None) -> str:
        """The text put into `pod_logs`; NotFoundError for a pod that does not exist."""

        def read() -> str:
            self._objects.get(ref)
            lines = self.pod_logs.get((normal(ref).namespace or "", ref.name), "").splitlines(keepends=True)
            return "".join(lines if tail_lines is None else lines[max(0, len(lines) - tail_lines) :])

        return self._call(Call("logs", ref.kind, normal(ref)), read)

    async def close(self) -> None:
        """Nothing to release."""

    def break_watches(self) -> None:
        """410 for every open watch: each lists afresh."""
        for watcher in self._watchers:
            self._relist(watcher)

    def _listed(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None, name: str | None = None
    ) -> Sequence[Object]:
        found = self._rows.select(kind, namespace)
        return [item for item in found if matches(labels, item) and name in (None, item["metadata"]["name"])]

    def _call(self, call: Call, act: Callable[[], T]) -> T:
        fault = self.faults(call)
        what = f"{call.verb} {call.kind.kind} {call.ref.name if call.ref else ''}".rstrip()
        if fault is Fault.CONFLICT:
            raise ConflictError("Conflict", f"{what}: the object has been modified (injected)")
        if fault is Fault.UNAVAILABLE:
            raise UnavailableError("Unavailable", f"{what}: the cluster did not answer (injected)")
        version = self._rows.version
        result = act()
        if call.verb not in READS:
            ref = call.ref or (ref_of(result) if isinstance(result, dict) else Ref(call.kind, ""))
            self.writes.append(Write(call.verb, ref, call.body, changed=self._rows.version != version))
        if fault is Fault.LOST_REPLY:
            raise UnavailableError("Unavailable", f"{what}: the reply was lost (injected)")
        return copied(result)

    def _announce(self, kind: Kind, item: Object, before: Object | None, deleted: bool) -> None:
        for watcher in self._watchers:
            if watcher.kind != kind or watcher.namespace not in (None, item["metadata"].get("namespace")):
                continue
            event = watcher.following.deleted(item) if deleted else watcher.following.changed(item)
            if event is not None:
                self._deliver(watcher, event, before)

    def _deliver(self, watcher: _Watcher, event: WatchEvent, before: Object | None) -> None:
        fault = self.faults(Call("watch", watcher.kind, ref_of(event.object), event=event))
        if fault is Fault.EXPIRED_WATCH:
            watcher.following.forget(event.object, before)
            self._relist(watcher)
            return
        if fault is Fault.DELAYED_EVENT:
            watcher.held.append(event)
            return
        watcher.events.append(event)
        if fault is Fault.DUPLICATE_EVENT:
            watcher.events.append(event)
        if fault is Fault.STALE_EVENT and before is not None:
            watcher.events.append(WatchEvent(EventType.MODIFIED, before))
        watcher.events.extend(watcher.held)
        watcher.held.clear()
        watcher.arrived.set()

    def _relist(self, watcher: _Watcher) -> None:
        watcher.events.extend(watcher.held)
        watcher.held.clear()
        watcher.events.extend(watcher.following.relisted(self._listed(watcher.kind, watcher.namespace, None)))
        watcher.arrived.set()


@dataclass(slots=True, eq=False)
class _Watcher:
    kind: Kind
    namespace: str | None
    following: Following
    events: deque[WatchEvent] = field(default_factory=deque)
    held: list[WatchEvent] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class _Rows:
    """Rows in a dictionary; tells every change."""

    def __init__(self, announce: Callable[[Kind, Object, Object | None, bool], None]) -> None:
        self.version = 0
        self._announce = announce
        self._by_kind: dict[Kind, dict[Key, Object]] = {}
        self._uids: set[str] = set()
        self._uid_count = 0

    def next_uid(self) -> str:
        self._uid_count += 1
        return f"00000000-0000-4000-8000-{self._uid_count:012x}"

    def read(self, ref: Ref) -> Object | None:
        found = self._by_kind.get(ref.kind, {}).get((ref.namespace or "", ref.name))
        return copied(found) if found is not None else None

    def select(self, kind: Kind | None, namespace: str | None) -> list[Object]:
        tables = self._by_kind.values() if kind is None else [self._by_kind.get(kind, {})]
        return [
            item for table in tables for key, item in sorted(table.items()) if namespace is None or key[0] == namespace
        ]

    def has_uid(self, uid: str) -> bool:
        return uid in self._uids

    def owned_by(self, uid: str) -> list[Object]:
        return [
            item
            for item in self.select(None, None)
            if any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or ())
        ]

    def write(self, ref: Ref, item: Object) -> Object:
        self.version += 1
        stored = copied(item)
        stored["metadata"]["resourceVersion"] = str(self.version)
        table = self._by_kind.setdefault(ref.kind, {})
        before = table.get(key_of(stored))
        table[key_of(stored)] = stored
        self._uids.add(stored["metadata"]["uid"])
        self._announce(ref.kind, stored, before, False)
        return copied(stored)

    def remove(self, ref: Ref, item: Object) -> None:
        self.version += 1
        before = self._by_kind[ref.kind].pop((ref.namespace or "", ref.name))
        self._uids.discard(item["metadata"]["uid"])
        last = copied(item)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._announce(ref.kind, last, before, True)
