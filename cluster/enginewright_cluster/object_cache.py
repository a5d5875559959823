"""Objects of one kind in little memory, found by name, namespace and label."""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from .objects.following import Key, key_of
from .port import Object

_REMEMBERED = 10_000
_LEVEL = 1
"""The fastest: a third to a fifth of the bytes already, since manifests repeat themselves."""


@dataclass(frozen=True, slots=True)
class _Packed:
    uid: str
    version: int
    labels: tuple[tuple[str, str], ...]
    content: bytes


class ObjectCache:
    """Newest known version of each object; versions are the API server's, compared as the numbers that they are
    (guaranteed since Kubernetes 1.35, and true of all before)."""

    def __init__(self, indexed_labels: Collection[str]) -> None:
        """`indexed_labels`: those whose values few objects share; selecting by one of them looks at these only."""
        self._indexed = frozenset(indexed_labels)
        self._packed: dict[Key, _Packed] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        """Uids of late: an event that comes after the deletion, outdated or out of order, must not bring it back."""
        self._by_namespace: dict[str, dict[Key, None]] = {}
        self._by_label: dict[tuple[str, str, str], dict[Key, None]] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, key: Key) -> Object | None:
        """A copy of the object, None when it is not known."""
        packed = self._packed.get(key)
        return None if packed is None else _unpacked(packed)

    def select(self, namespace: str | None, labels: Mapping[str, str] | None) -> list[Object]:
        """Copies of all objects with these labels, by namespace and name."""
        wanted = set((labels or {}).items())
        keys = sorted(self._candidates(namespace, labels or {}))
        found = (self._packed[key] for key in keys)
        return [_unpacked(packed) for packed in found if wanted.issubset(packed.labels)]

    def put(self, item: Object) -> None:
        """A version of an object; an older one than is known changes nothing."""
        key, metadata = key_of(item), item["metadata"]
        version, known = _version(item), self._packed.get(key)
        if metadata.get("uid") in self._gone or (known is not None and known.version >= version):
            return
        self._drop(key)
        labels = tuple((metadata.get("labels") or {}).items())
        packed = _Packed(metadata.get("uid", ""), version, labels, zlib.compress(json.dumps(item).encode(), _LEVEL))
        self._packed[key] = packed
        self._by_namespace.setdefault(key[0], {})[key] = None
        for name in self._index_names(key, packed):
            self._by_label.setdefault(name, {})[key] = None

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

    def labels(self, key: Key) -> Mapping[str, str]:
        """Of the object of this name; empty when it is not known."""
        packed = self._packed.get(key)
        return {} if packed is None else dict(packed.labels)

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def _drop(self, key: Key) -> None:
        packed = self._packed.pop(key, None)
        if packed is None:
            return
        self._by_namespace[key[0]].pop(key)
        for name in self._index_names(key, packed):
            group = self._by_label[name]
            group.pop(key)
            if not group:
                del self._by_label[name]

    def _candidates(self, namespace: str | None, labels: Mapping[str, str]) -> Collection[Key]:
        if namespace is None:
            return self._packed
        for name, value in labels.items():
            if name in self._indexed:
                return self._by_label.get((namespace, name, value), {})
        return self._by_namespace.get(namespace, {})

    def _index_names(self, key: Key, packed: _Packed) -> Iterator[tuple[str, str, str]]:
        for name, value in packed.labels:
            if name in self._indexed:
                yield (key[0], name, value)


def _unpacked(packed: _Packed) -> Object:
    item: Object = json.loads(zlib.decompress(packed.content))
    return item


def _version(item: Object) -> int:
    text = str(item["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0
