"""What a watcher has seen: turns changes and relists into events for one selector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..port import EventType, Object, WatchEvent
from .labels import matches
from .packing import Packing

Key = tuple[str, str]

_TOLD_OF_THE_GONE = ("name", "namespace", "generation", "labels", "ownerReferences")


def key_of(item: Object) -> Key:
    """Namespace and name."""
    metadata = item["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of an object: enough to tell a change from a repetition, and what it was once it is gone."""

    uid: str | None
    version: str | None
    head: bytes
    """Packed: type and the rest of the metadata."""


class Following:
    """One watcher's knowledge. An object that leaves the selector is reported as DELETED, as the API server does.

    Objects themselves are not kept: of one whose deletion was missed, the event tells type and metadata.
    """

    def __init__(self, labels: Mapping[str, str] | None) -> None:
        self._labels = labels
        self._known: dict[Key, _Seen] = {}
        self._packing = Packing()

    @property
    def keys(self) -> set[Key]:
        """Of all objects known."""
        return set(self._known)

    def selects(self, item: Object) -> bool:
        """Whether the watcher asked for such an object."""
        return matches(self._labels, item)

    def relist(self) -> Relist:
        """Take over a fresh list."""
        return Relist(self)

    def relisted(self, items: Iterable[Object]) -> Iterator[WatchEvent]:
        """Events that bring the watcher from what it knew to a fresh list."""
        relist = self.relist()
        yield from relist.page(items)
        yield from relist.end()

    def listed(self, item: Object) -> Iterator[WatchEvent]:
        """An object of a fresh list: new, changed, as it was, or another one of its name."""
        known = self._known.get(key_of(item))
        if known is not None and known.uid != item["metadata"].get("uid"):
            yield from self.missing(key_of(item))
            known = None
        if known is None or known.version != item["metadata"].get("resourceVersion"):
            self._known[key_of(item)] = self._seen(item)
            yield WatchEvent(EventType.ADDED if known is None else EventType.MODIFIED, item)

    def missing(self, key: Key) -> Iterator[WatchEvent]:
        """A known object is not in a fresh list."""
        seen = self._known.pop(key)
        head: Object = self._packing.unpack(seen.head)
        head["metadata"] |= {"uid": seen.uid, "resourceVersion": seen.version}
        yield WatchEvent(EventType.DELETED, head)

    def changed(self, item: Object) -> WatchEvent | None:
        """An object was written."""
        key = key_of(item)
        if not self.selects(item):
            return self.deleted(item)
        known = key in self._known
        self._known[key] = self._seen(item)
        return WatchEvent(EventType.MODIFIED if known else EventType.ADDED, item)

    def deleted(self, item: Object) -> WatchEvent | None:
        """An object is gone, or out of the selector."""
        known = self._known.pop(key_of(item), None)
        return WatchEvent(EventType.DELETED, item) if known is not None else None

    def forget(self, item: Object, before: Object | None) -> None:
        """Undo the last `changed` or `deleted`: its event was lost on the way."""
        if before is None:
            self._known.pop(key_of(item), None)
        else:
            self._known[key_of(before)] = self._seen(before)

    def _seen(self, item: Object) -> _Seen:
        metadata = item["metadata"]
        told = {name: metadata[name] for name in _TOLD_OF_THE_GONE if name in metadata}
        head = {"apiVersion": item.get("apiVersion"), "kind": item.get("kind"), "metadata": told}
        return _Seen(metadata.get("uid"), metadata.get("resourceVersion"), self._packing.pack(head))


class Relist:
    """A fresh list that comes in pages, so that all of it is never in memory at once."""

    def __init__(self, following: Following) -> None:
        self._following = following
        self._present: set[Key] = set()

    def page(self, items: Iterable[Object]) -> Iterator[WatchEvent]:
        """Events of these objects."""
        for item in items:
            if self._following.selects(item):
                self._present.add(key_of(item))
                yield from self._following.listed(item)

    def end(self) -> Iterator[WatchEvent]:
        """Nothing else exists: deletions that were missed."""
        for key in sorted(self._following.keys - self._present):
            yield from self._following.missing(key)
