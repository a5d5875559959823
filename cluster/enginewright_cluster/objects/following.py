"""What a watcher has seen: turns changes and relists into events for one selector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..port import EventType, Object, WatchEvent
from .labels import matches

Key = tuple[str, str]


def key_of(item: Object) -> Key:
    """Namespace and name."""
    metadata = item["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


class Following:
    """One watcher's knowledge. An object that leaves the selector is reported as DELETED, as the API server does."""

    def __init__(self, labels: Mapping[str, str] | None) -> None:
        self._labels = labels
        self._known: dict[Key, Object] = {}

    def relisted(self, items: Sequence[Object]) -> Iterator[WatchEvent]:
        """Events that bring the watcher from what it knew to a fresh list; missed deletions come first."""
        present = {key_of(item): item for item in items if matches(self._labels, item)}
        for key, item in list(self._known.items()):
            replaced = key in present and present[key]["metadata"].get("uid") != item["metadata"].get("uid")
            if key not in present or replaced:
                yield WatchEvent(EventType.DELETED, self._known.pop(key))
        for key, item in present.items():
            known = self._known.get(key)
            self._known[key] = item
            if known is None:
                yield WatchEvent(EventType.ADDED, item)
            elif known["metadata"].get("resourceVersion") != item["metadata"].get("resourceVersion"):
                yield WatchEvent(EventType.MODIFIED, item)

    def changed(self, item: Object) -> WatchEvent | None:
        """An object was written."""
        key = key_of(item)
        if not matches(self._labels, item):
            return self.deleted(item)
        known = key in self._known
        self._known[key] = item
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
            self._known[key_of(before)] = before
