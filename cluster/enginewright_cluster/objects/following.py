"""What a watcher has seen: turns changes and relists into events for one selector."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..port import EventType, Object, WatchEvent
from .labels import matches

Key = tuple[str, str]

_TOLD_OF_THE_GONE = ("name", "namespace", "uid", "resourceVersion", "generation", "labels", "ownerReferences")


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

    @classmethod
    def of(cls, item: Object) -> _Seen:
        metadata = item["metadata"]
        told = {name: metadata[name] for name in _TOLD_OF_THE_GONE if name in metadata}
        head = {"apiVersion": item.get("apiVersion"), "kind": item.get("kind"), "metadata": told}
        return cls(metadata.get("uid"), metadata.get("resourceVersion"), json.dumps(head).encode())

    def object(self) -> Object:
        """Type and metadata."""
        head: Object = json.loads(self.head)
        return head


class Following:
    """One watcher's knowledge. An object that leaves the selector is reported as DELETED, as the API server does.

    Objects themselves are not kept: of one whose deletion was missed, the event tells type and metadata.
    """

    def __init__(self, labels: Mapping[str, str] | None) -> None:
        self._labels = labels
        self._known: dict[Key, _Seen] = {}

    def relisted(self, items: Sequence[Object]) -> Iterator[WatchEvent]:
        """Events that bring the watcher from what it knew to a fresh list; missed deletions come first."""
        present = {key_of(item): item for item in items if matches(self._labels, item)}
        for key, seen in list(self._known.items()):
            replaced = key in present and present[key]["metadata"].get("uid") != seen.uid
            if key not in present or replaced:
                yield WatchEvent(EventType.DELETED, self._known.pop(key).object())
        for key, item in present.items():
            known = self._known.get(key)
            self._known[key] = _Seen.of(item)
            if known is None:
                yield WatchEvent(EventType.ADDED, item)
            elif known.version != item["metadata"].get("resourceVersion"):
                yield WatchEvent(EventType.MODIFIED, item)

    def changed(self, item: Object) -> WatchEvent | None:
        """An object was written."""
        key = key_of(item)
        if not matches(self._labels, item):
            return self.deleted(item)
        known = key in self._known
        self._known[key] = _Seen.of(item)
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
            self._known[key_of(before)] = _Seen.of(before)
