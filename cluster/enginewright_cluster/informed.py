"""A cluster whose reads are answered from what its watches told: ten thousand objects are read without a request.

Never older than the reader's own last write: what a write answers is known at once, and where the outcome of a write is
unknown the object is read afresh before anything is answered about its kind. Others' writes are known when their event
comes. What becomes known is news once, be it by a write's answer or by an event: the event of an own write is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from .object_cache import ObjectCache, owner_uids
from .objects.following import Key, key_of
from .objects.labels import matches
from .objects.metadata import normal, ref_of
from .port import (
    Cluster,
    EventType,
    FieldConflictError,
    InvalidError,
    Kind,
    NotFoundError,
    Object,
    Ref,
    WatchEvent,
    kind_of,
)

_NAMES_AT_ONCE = 16


class Informed:
    """`Cluster` over another one. Kinds are cached from when their watch has begun; everything else passes through."""

    def __init__(
        self,
        cluster: Cluster,
        kinds: Collection[Kind],
        indexed_labels: Collection[str],
        *,
        owned_kinds: Collection[Kind] = (),
        news: Callable[[Kind, WatchEvent], None] = lambda kind, event: None,
    ) -> None:
        """`kinds`: those that will be watched; `owned_kinds`: those of them that are asked for by their owner.

        `news` is told of each version of an object that is watched when it becomes known here, and of each deletion.
        """
        self._cluster = cluster
        self._news = news
        self._caches = {kind: ObjectCache(indexed_labels, by_owner=kind in owned_kinds) for kind in kinds}
        self._selected: dict[Kind, tuple[str | None, Mapping[str, str]]] = {}
        """Namespace and labels of the watch of each kind, once its present is known."""
        self._doubtful: dict[Kind, dict[Ref, int]] = {kind: {} for kind in kinds}
        """Objects to which something was done with unknown outcome, and the number of the doubt."""
        self._doubts = itertools.count()
        self._begun = {kind: asyncio.Event() for kind in kinds}
        self._missing: dict[Kind, tuple[str, str]] = {}
        """Reason and message, of kinds that the cluster did not know when their watch last tried to begin."""

    async def begun(self) -> None:
        """Wait until the present of every kind is known, or that the cluster does not know the kind."""
        for event in self._begun.values():
            await event.wait()

    async def get(self, ref: Ref) -> Object:
        """See `Cluster.get`. What the cache does not have is asked for: it may be outside of what is watched."""
        ref = normal(ref)
        if ref.kind in self._selected:
            await self._settle_doubts(ref.kind)
            found = self._caches[ref.kind].get(_key(ref))
            if found is not None:
                return found
        return await self._cluster.get(ref)

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Sequence[Object]:
        """See `Cluster.list`. With labels, objects that the watch's own labels leave out are not ours to see."""
        if kind in self._missing:
            # A new one each time: an error that is raised again grows by the frames of each raise, and keeps them.
            raise NotFoundError(*self._missing[kind])
        if not self._covers(kind, namespace, labels):
            return await self._cluster.list(kind, namespace=namespace, labels=labels, name=name)
        await self._settle_doubts(kind)
        found = self._caches[kind].select(namespace, labels)
        return found if name is None else [item for item in found if item["metadata"]["name"] == name]

    async def named(self, kind: Kind, namespace: str) -> Mapping[str, Object]:
        """All objects of a namespace by name; from memory each is looked up when it is asked for."""
        if not self._covers(kind, namespace, None):
            return {item["metadata"]["name"]: item for item in await self._cluster.list(kind, namespace=namespace)}
        await self._settle_doubts(kind)
        return self._caches[kind].named(namespace)

    async def owned(self, kind: Kind, namespace: str, uid: str) -> Sequence[Object]:
        """Objects that name this uid as an owner. `kind` is one of `owned_kinds`."""
        if not self._covers(kind, namespace, None):
            items = await self._cluster.list(kind, namespace=namespace)
            return [item for item in items if uid in owner_uids(item)]
        await self._settle_doubts(kind)
        return self._caches[kind].owned(namespace, uid)

    async def apply(self, manifest: Object, *, field_manager: str = "enginewright", force: bool = True) -> Object:
        """See `Cluster.apply`."""
        work = self._cluster.apply(manifest, field_manager=field_manager, force=force)
        return await self._written(ref_of(manifest), work)

    async def create(self, manifest: Object) -> Object:
        """See `Cluster.create`."""
        work = self._cluster.create(manifest)
        if not manifest.get("metadata", {}).get("name"):
            made = await work
            self._know(kind_of(made), made)
            return made
        return await self._written(ref_of(manifest), work)

    async def patch_status(
        self,
        ref: Ref,
        status: Mapping[str, Any],
        *,
        uid: str | None = None,
        version: str | None = None,
        field_manager: str = "enginewright",
    ) -> Object:
        """See `Cluster.patch_status`."""
        if ref.kind in self._caches and version is None and uid is not None:
            version = self._caches[ref.kind].version(_key(ref), uid)
        work = self._cluster.patch_status(ref, status, uid=uid, version=version, field_manager=field_manager)
        return await self._written(ref, work)

    async def patch(self, ref: Ref, patch: Mapping[str, Any], *, uid: str | None = None) -> Object:
        """See `Cluster.patch`."""
        return await self._written(ref, self._cluster.patch(ref, patch, uid=uid))

    async def scale(self, ref: Ref, replicas: int) -> None:
        """See `Cluster.scale`."""
        with self._in_doubt(ref):
            await self._cluster.scale(ref, replicas)

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        """See `Cluster.delete`. Whether it is gone at once is the finalizers' matter, so it is looked at again."""
        with self._in_doubt(ref):
            await self._cluster.delete(ref, uid=uid)

    async def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        present: Callable[[], None] | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """See `Cluster.watch`. Each event is known here before it is told."""
        if kind not in self._caches:
            async for event in self._cluster.watch(kind, namespace=namespace, labels=labels, present=present):
                yield event
            return
        # A watch that begins anew does not tell what went while there was none.
        unseen = dict(self._caches[kind].uids())

        def begun() -> None:
            for key, uid in unseen.items():
                self._missed(kind, key, uid)
            unseen.clear()
            self._missing.pop(kind, None)
            self._selected[kind] = (namespace, dict(labels or {}))
            self._begun[kind].set()
            if present is not None:
                present()

        try:
            async for event in self._cluster.watch(kind, namespace=namespace, labels=labels, present=begun):
                unseen.pop(key_of(event.object), None)
                self._learn(kind, event)
                yield event
        except NotFoundError as error:  # only ever the first list
            self._missing[kind] = (error.reason, error.message)
            self._begun[kind].set()
            raise

    async def logs(self, ref: Ref, *, container: str | None = None, tail_lines: int | None = None) -> str:
        """See `Cluster.logs`."""
        return await self._cluster.logs(ref, container=container, tail_lines=tail_lines)

    async def close(self) -> None:
        """See `Cluster.close`."""
        await self._cluster.close()

    def _learn(self, kind: Kind, event: WatchEvent) -> None:
        if event.type is not EventType.DELETED:
            if self._caches[kind].put(event.object):
                self._news(kind, event)
            return
        if not self._caches[kind].deleted(event.object):
            self._doubt(ref_of(event.object))
        self._news(kind, event)

    def _covers(self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None) -> bool:
        """Whether the watch of this kind tells all that the query asks for."""
        if kind not in self._selected:
            return False
        watched_namespace, watched_labels = self._selected[kind]
        if watched_namespace is not None and watched_namespace != namespace:
            return False
        return not watched_labels or bool(labels)

    async def _written(self, ref: Ref, work: Awaitable[Object]) -> Object:
        """Know what a write answers; after one that failed, ask before answering anything about its kind."""
        try:
            result = await work
        except (InvalidError, FieldConflictError):
            raise  # nothing happened
        except BaseException:
            self._doubt(ref)
            raise
        self._know(ref.kind, result)
        return result

    @contextlib.contextmanager
    def _in_doubt(self, ref: Ref) -> Iterator[None]:
        try:
            yield
        finally:
            self._doubt(ref)

    def _doubt(self, ref: Ref) -> None:
        if ref.kind in self._doubtful:
            self._doubtful[ref.kind][normal(ref)] = next(self._doubts)

    def _know(self, kind: Kind, item: Object) -> None:
        cache = self._caches.get(kind)
        if cache is None or kind not in self._selected or not matches(self._selected[kind][1], item):
            return
        if cache.put(item):
            self._news(kind, WatchEvent(EventType.MODIFIED, item))

    def _missed(self, kind: Kind, key: Key, uid: str) -> None:
        """An object is gone, and its deletion was not told, or not yet."""
        cache = self._caches[kind]
        item = cache.get(key) if cache.uid(key) == uid else None
        cache.forget(key, uid)
        if item is not None:
            self._news(kind, WatchEvent(EventType.DELETED, item))

    async def _settle_doubts(self, kind: Kind) -> None:
        """Read what is in doubt; whoever reads meanwhile waits for nothing less."""
        doubtful = self._doubtful[kind]
        while doubtful:
            refs = list(doubtful)[:_NAMES_AT_ONCE]
            await asyncio.gather(*(self._look(ref) for ref in refs))

    async def _look(self, ref: Ref) -> None:
        """By a list: reading one object by name is a right of its own, which is not needed otherwise."""
        doubt = self._doubtful[ref.kind].get(ref)
        if doubt is None:
            return
        cache, key = self._caches[ref.kind], _key(ref)
        known = cache.uid(key)
        labels = self._selected[ref.kind][1]
        found = await self._cluster.list(ref.kind, namespace=ref.namespace, labels=labels, name=ref.name)
        item = next(iter(found), None)
        if known is not None and (item is None or item["metadata"].get("uid") != known):
            self._missed(ref.kind, key, known)
        if item is not None:
            self._know(ref.kind, item)
        if self._doubtful[ref.kind].get(ref) == doubt:
            self._doubtful[ref.kind].pop(ref)


def _key(ref: Ref) -> Key:
    return (ref.namespace or "", ref.name)
