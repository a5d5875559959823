"""Who owns which fields: reading and writing metadata.managedFields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .field_paths import Path, from_fields, leaves, to_fields

Operation = Literal["Apply", "Update"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A field manager; the same name applying and updating counts as two, as in the API server."""

    manager: str
    operation: Operation


Ownership = dict[Owner, set[Path]]


def ownership_of(item: Mapping[str, Any]) -> Ownership:
    """Owners and their fields."""
    return {
        Owner(entry["manager"], entry["operation"]): from_fields(entry["fieldsV1"])
        for entry in item["metadata"].get("managedFields") or ()
    }


def record(item: dict[str, Any], ownership: Ownership) -> None:
    """Write the owners into the object, in a stable order; owners of nothing are left out."""
    api_version = item["apiVersion"]
    entries = [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields(paths),
        }
        for owner, paths in sorted(ownership.items(), key=lambda pair: (pair[0].manager, pair[0].operation))
        if paths
    ]
    item["metadata"]["managedFields"] = entries


def record_update(before: Mapping[str, Any] | None, after: dict[str, Any], manager: str) -> None:
    """After a plain write (create, patch, scale) its author owns what changed, and nobody owns what is gone."""
    old = leaves(before) if before is not None else {}
    new = leaves(after)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    ownership = ownership_of(before) if before is not None else {}
    unchanged = new.keys() - changed
    ownership = {owner: paths & unchanged for owner, paths in ownership.items()}
    if changed:
        ownership.setdefault(Owner(manager, "Update"), set()).update(changed)
    record(after, ownership)
