"""Paths of fields, as managedFields (FieldsV1) names them.

A path is a tuple of steps: `f:name` a field, `k:{"name":"x"}` a list item found by its key, `v:"x"` a member of a set,
and a last step `.` for the list item itself. Lists without a key, and a few maps, are one leaf: atomic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]
ITEM = "."

_POD_LISTS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
}
_POD_KINDS = frozenset({"Deployment", "Job", "Pod", "Service"})
_ATOMIC_MAPS = frozenset(
    {"selector", "nodeSelector", "fieldRef", "configMapKeyRef", "secretKeyRef", "resourceFieldRef"}
)
_KEY_DEFAULTS = {"protocol": "TCP"}
_UNOWNED_METADATA = frozenset(
    {
        "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
        "deletionGracePeriodSeconds", "managedFields", "generateName", "selfLink",
    }
)  # fmt: skip
_UNOWNED = frozenset({"apiVersion", "kind", "status"})


def list_keys(kind: str, field: str, items: Sequence[Any]) -> tuple[str, ...] | None:
    """Fields that tell the items of a list apart; None for an atomic list."""
    if field == "ownerReferences":
        keys: tuple[str, ...] | None = ("uid",)
    elif kind not in _POD_KINDS:
        keys = None
    elif field == "ports":
        first = items[0] if items and isinstance(items[0], Mapping) else {}
        keys = ("containerPort", "protocol") if "containerPort" in first else ("port", "protocol")
    else:
        keys = _POD_LISTS.get(field)
    if keys is None or not all(isinstance(item, Mapping) and _has_keys(item, keys) for item in items):
        return None
    return keys


def item_step(item: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The `k:` step of a list item."""
    found = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in keys}
    return "k:" + json.dumps(found, sort_keys=True, separators=(",", ":"))


def is_set(path: Path) -> bool:
    """Whether the list at a path is a set of scalars."""
    return path == ("f:metadata", "f:finalizers")


def is_atomic_map(kind: str, field: str) -> bool:
    """Whether a map is owned as a whole."""
    return kind in _POD_KINDS and field in _ATOMIC_MAPS


def leaves(manifest: Mapping[str, Any]) -> dict[Path, Any]:
    """Every path that a manifest states, with its value; identity and status are nobody's."""
    found: dict[Path, Any] = {}
    kind = str(manifest.get("kind"))
    for name, value in manifest.items():
        if name == "metadata":
            for key, item in value.items():
                if key not in _UNOWNED_METADATA:
                    found.update(_walk(kind, ("f:metadata", f"f:{key}"), key, item))
        elif name not in _UNOWNED:
            found.update(_walk(kind, (f"f:{name}",), name, value))
    return found


def _walk(kind: str, path: Path, field: str, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping) and value and not is_atomic_map(kind, field):
        for name, child in value.items():
            yield from _walk(kind, (*path, f"f:{name}"), name, child)
    elif isinstance(value, list) and value and is_set(path):
        for member in value:
            yield (*path, "v:" + json.dumps(member)), member
    elif isinstance(value, list) and value and (keys := list_keys(kind, field, value)):
        for item in value:
            step = item_step(item, keys)
            yield (*path, step, ITEM), None
            for name, child in item.items():
                yield from _walk(kind, (*path, step, f"f:{name}"), name, child)
    else:
        yield path, value


def to_fields(paths: Iterable[Path]) -> dict[str, Any]:
    """FieldsV1 tree of a set of paths."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    return tree


def from_fields(tree: Mapping[str, Any]) -> set[Path]:
    """The set of paths of a FieldsV1 tree."""
    found: set[Path] = set()
    for step, child in tree.items():
        found.update((step, *rest) for rest in from_fields(child)) if child else found.add((step,))
    return found


def sentence(path: Path) -> str:
    """A path as people write it: `.spec.template.spec.containers[name="server"].image`."""
    text = ""
    for step in path:
        mark, _, rest = step.partition(":")
        if mark == "f":
            text += f".{rest}"
        elif mark == "k":
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
        elif mark == "v":
            text += f"[={rest}]"
    return text


def _has_keys(item: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    return all(key in item or key in _KEY_DEFAULTS for key in keys)
