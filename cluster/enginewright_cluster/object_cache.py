"""Objects of one kind in little memory, found by name, namespace, label and owner."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from .objects.following import Key, key_of
from .objects.labels import matches
from .objects.packing import Packing
from .port import Object

_REMEMBERED_SECONDS = 120.0
"""Longer than a request takes with all its tries: what was answered before a deletion has come by then."""
_OWNER = "metadata.ownerReferences.uid"

Entry = tuple[str, str, str]
"""Of the index: namespace, name of a label or `_OWNER`, value."""


@dataclass(frozen=True, slots=True)
class _Packed:
    uid: str
    version: int
    entries: tuple[Entry, ...]
    content: bytes


class ObjectCache:
    """Newest known version of each object; versions are the API server's, compared as the numbers that they are
    (guaranteed since Kubernetes 1.35, and true of all before)."""

    def __init__(
        self,
        indexed_labels: Collection[str],
        *,
        by_owner: bool = False,
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        """`indexed_labels`: those whose values few objects share; selecting by one of them looks at these only.

        `clock`: seconds from any point; by default of the running event loop.
        """
        self._indexed = frozenset(indexed_labels)
        self._by_owner = by_owner
        self._clock = clock
        self._packing = Packing()
        self._packed: dict[Key, _Packed] = {}
        self._gone: OrderedDict[str, float] = OrderedDict()
        """Uids of late, eldest first, and when each was heard to be gone: what comes after the deletion, outdated or
        out of order, must not bring it back. By time and not by number, or ten kinds' would grow for days."""
        self._by_namespace: dict[str, dict[Key, None]] = {}
        self._index: dict[Entry, tuple[Key, ...]] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, key: Key) -> Object | None:
        """A copy of the object, None when it is not known."""
        packed = self._packed.get(key)
        return None if packed is None else self._unpacked(packed)

    def select(self, namespace: str | None, labels: Mapping[str, str] | None) -> list[Object]:
        """Copies of all objects with these labels, by namespace and name."""
        found = (self._unpacked(self._packed[key]) for key in sorted(self._candidates(namespace, labels or {})))
        return [item for item in found if matches(labels, item)]

    def owned(self, namespace: str, uid: str) -> list[Object]:
        """Copies of the objects that the object of this uid owns. Needs `by_owner`."""
        return [self._unpacked(self._packed[key]) for key in sorted(self._index.get((namespace, _OWNER, uid), ()))]

    def named(self, namespace: str) -> Mapping[str, Object]:
        """The objects of a namespace by name, each unpacked when it is asked for."""
        return _Named(self, namespace)

    def names(self, namespace: str) -> Collection[str]:
        """Of the objects of a namespace."""
        return [name for _, name in self._by_namespace.get(namespace, ())]

    def put(self, item: Object) -> bool:
        """A version of an object; whether it is news, as opposed to one that is known or older than what is."""
        key, metadata = key_of(item), item["metadata"]
        version, known = _version(item), self._packed.get(key)
        if metadata.get("uid") in self._gone or (known is not None and known.version >= version):
            return False
        self._drop(key)
        packed = _Packed(metadata.get("uid", ""), version, tuple(self._entries(item)), self._packing.pack(item))
        self._packed[key] = packed
        self._by_namespace.setdefault(key[0], {})[key] = None
        for entry in packed.entries:
            self._index[entry] = (*self._index.get(entry, ()), key)
        return True

    def deleted(self, item: Object) -> bool:
        """This object is gone; another one of its name stays. False when something newer is known of it: look again."""
        key, uid = key_of(item), item["metadata"].get("uid", "")
        known = self._packed.get(key)
        if known is None or known.uid != uid:
            self._bury(uid)
            return True
        if known.version > _version(item):
            return False
        self._drop(key)
        self._bury(uid)
        return True

    def forget(self, key: Key, uid: str) -> None:
        """The object of this name and uid does not exist."""
        known = self._packed.get(key)
        if known is not None and known.uid == uid:
            self._drop(key)
        self._bury(uid)

    def uids(self) -> Mapping[Key, str]:
        """Of everything known."""
        return {key: packed.uid for key, packed in self._packed.items()}

    def uid(self, key: Key) -> str | None:
        """Of the object of this name."""
        packed = self._packed.get(key)
        return None if packed is None else packed.uid

    def version(self, key: Key, uid: str) -> str | None:
        """Newest resource version that is known of the object of this name and uid."""
        packed = self._packed.get(key)
        return str(packed.version) if packed is not None and packed.uid == uid and packed.version else None

    def _bury(self, uid: str) -> None:
        now = self._clock()
        self._gone[uid] = now
        self._gone.move_to_end(uid)
        while now - self._gone[next(iter(self._gone))] > _REMEMBERED_SECONDS:
            self._gone.popitem(last=False)

    def _drop(self, key: Key) -> None:
        packed = self._packed.pop(key, None)
        if packed is None:
            return
        namespace = self._by_namespace[key[0]]
        namespace.pop(key)
        if not namespace:
            del self._by_namespace[key[0]]
        for entry in packed.entries:
            left = tuple(other for other in self._index.pop(entry) if other != key)
            if left:
                self._index[entry] = left

    def _candidates(self, namespace: str | None, labels: Mapping[str, str]) -> Collection[Key]:
        if namespace is None:
            return self._packed
        for name, value in labels.items():
            if name in self._indexed:
                return self._index.get((namespace, name, value), ())
        return self._by_namespace.get(namespace, {})

    def _entries(self, item: Object) -> Iterator[Entry]:
        metadata = item["metadata"]
        namespace = metadata.get("namespace") or ""
        for name, value in (metadata.get("labels") or {}).items():
            if name in self._indexed:
                yield (namespace, name, value)
        if self._by_owner:
            for uid in owner_uids(item):
                yield (namespace, _OWNER, uid)

    def _unpacked(self, packed: _Packed) -> Object:
        item: Object = self._packing.unpack(packed.content)
        return item


class _Named(Mapping[str, Object]):
    def __init__(self, cache: ObjectCache, namespace: str) -> None:
        self._cache, self._namespace = cache, namespace

    def __getitem__(self, name: str) -> Object:
        item = self._cache.get((self._namespace, name))
        if item is None:
            raise KeyError(name)
        return item

    def __iter__(self) -> Iterator[str]:
        return iter(self._cache.names(self._namespace))

    def __len__(self) -> int:
        return len(self._cache.names(self._namespace))


def owner_uids(item: Object) -> set[str]:
    """Of all objects that own this one."""
    return {owner.get("uid", "") for owner in item["metadata"].get("ownerReferences") or ()}


def _version(item: Object) -> int:
    text = str(item["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0
