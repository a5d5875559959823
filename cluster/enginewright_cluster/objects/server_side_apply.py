"""Server-side apply: merge by field ownership.

The rules are those of the API server's structured merge: what a manager applied before and leaves out now goes away
unless somebody else owns it too; another manager's field with another value is a conflict unless forced; equal values
are shared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..port import FieldConflictError, Object, OwnedField
from .copying import copied
from .field_paths import ITEM, Path, is_atomic_map, is_set, item_step, leaves, list_keys, sentence
from .ownership import Owner, Ownership, ownership_of, record


def apply_to(live: Object, manifest: Object, *, manager: str, force: bool) -> Object:
    """The live object with the manifest applied, managedFields included. Raises FieldConflictError."""
    owner = Owner(manager, "Apply")
    stated, present = leaves(manifest), leaves(live)
    ownership = ownership_of(live)
    mine = ownership.pop(owner, set())
    conflicts = _conflicts(ownership, stated, present)
    if conflicts and not force:
        owned = [OwnedField(owner.manager, sentence(path)) for owner, paths in conflicts.items() for path in paths]
        raise FieldConflictError(_conflict_sentence(live, conflicts), sorted(owned))
    for other, paths in conflicts.items():
        ownership[other] -= paths
    merged = copied(live)
    for name, value in manifest.items():
        if name not in ("apiVersion", "kind", "status"):
            merged[name] = _merged(str(manifest["kind"]), (f"f:{name}",), merged.get(name), value)
    kept_by_others = set().union(*ownership.values()) if ownership else set()
    kept = stated.keys() | kept_by_others
    # Whole list items first: without its key an item could not be found any more.
    for path in sorted(mine - kept, key=lambda path: (path[-1] != ITEM, len(path))):
        # What was empty or atomic may have parts now; they are somebody's.
        if not _owned_below(path[:-1] if path[-1] == ITEM else path, kept):
            _remove(merged, _forsaken(path, kept), keep=kept)
    ownership[owner] = set(stated)
    record(merged, ownership)
    return merged


def first_apply(manifest: Object, *, manager: str) -> Object:
    """A new object whose fields all belong to its manager."""
    created = copied(manifest)
    record(created, {Owner(manager, "Apply"): set(leaves(manifest))})
    return created


def _conflicts(ownership: Ownership, stated: Mapping[Path, Any], present: Mapping[Path, Any]) -> dict[Owner, set[Path]]:
    differing = {path for path, value in stated.items() if path[-1] != ITEM and present.get(path) != value}
    found = {owner: paths & differing for owner, paths in ownership.items()}
    return {owner: paths for owner, paths in found.items() if paths}


def _conflict_sentence(live: Object, conflicts: Mapping[Owner, set[Path]]) -> str:
    parts = [
        f"{', '.join(sentence(path) for path in sorted(paths))} belong(s) to {owner.manager!r}"
        for owner, paths in conflicts.items()
    ]
    return f"{live['kind']} {live['metadata']['name']!r}: {'; '.join(parts)}; apply with force to take them over"


def _merged(kind: str, path: Path, live: Any, stated: Any) -> Any:
    field = path[-1].removeprefix("f:")
    if isinstance(stated, Mapping) and isinstance(live, Mapping) and not is_atomic_map(kind, field):
        merged = dict(live)
        for name, value in stated.items():
            merged[name] = _merged(kind, (*path, f"f:{name}"), merged.get(name), value)
        return merged
    if isinstance(stated, list) and isinstance(live, list):
        if is_set(path):
            return live + [member for member in stated if member not in live]
        keys = list_keys(kind, field, [*live, *stated])
        if keys and stated:
            return _merged_list(kind, path, live, stated, keys)
    return copied(stated)


def _merged_list(kind: str, path: Path, live: list[Any], stated: list[Any], keys: tuple[str, ...]) -> list[Any]:
    """Items in the order of the manifest, then those that only others know."""
    there = {item_step(item, keys): item for item in live}
    merged = [
        _merged(kind, (*path, item_step(item, keys)), there.pop(item_step(item, keys), None), item) for item in stated
    ]
    return merged + list(there.values())


def _forsaken(path: Path, kept: set[Path]) -> Path:
    """The outermost field above that nobody has anything of any more: defaults that it was filled with go as well."""
    depths = range(2, len(path))
    return next((path[:depth] for depth in depths if not _owned_below(path[:depth], kept)), path)


def _owned_below(prefix: Path, owned: set[Path]) -> bool:
    return any(path[: len(prefix)] == prefix for path in owned)


def _remove(item: Object, path: Path, *, keep: set[Path]) -> None:
    """Take the field at a path away, and the parents that this leaves empty unless someone states them."""
    trail: list[tuple[Any, Any]] = []
    node: Any = item
    steps = path[:-1] if path[-1] == ITEM else path
    for step in steps:
        key = _locate(node, step)
        if key is None:
            return
        trail.append((node, key))
        node = node[key]
    for depth in range(len(trail) - 1, -1, -1):
        container, key = trail[depth]
        del container[key]
        if container or depth == 0 or steps[:depth] in keep or len(steps[:depth]) <= 1:
            return


def _locate(node: Any, step: str) -> Any:
    """Key or index of a step in a container; None when it is not there."""
    mark, _, rest = step.partition(":")
    if mark == "f":
        return rest if isinstance(node, dict) and rest in node else None
    if not isinstance(node, list):
        return None
    for index, member in enumerate(node):
        if mark == "v" and step == "v:" + json.dumps(member):
            return index
        if mark == "k" and isinstance(member, Mapping) and step == item_step(member, tuple(json.loads(rest))):
            return index
    return None
