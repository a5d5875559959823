"""Reads and writes of objects, as the API server performs them, over any storage of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from enginewright_api.errors import DeterministicError

from ..port import NAMESPACE, ConflictError, InvalidError, Kind, NotFoundError, Object, Ref
from .copying import copied
from .merge_patch import merge_patch
from .metadata import (
    OUR_KINDS,
    WITH_GENERATION,
    WITH_SCALE,
    WITH_STATUS,
    check_immutable,
    check_preconditions,
    checked_name,
    normal,
    ref_of,
    shown,
    timestamp,
    with_server_fields,
    without_server_fields,
)
from .ownership import record_update
from .server_side_apply import apply_to, first_apply

Admission = Callable[[Mapping[str, Any], Mapping[str, Any] | None], dict[str, Any]]
"""Checks an object of ours (new, old) against its schema and rules, fills in defaults; DeterministicError if wrong."""


class Rows(Protocol):
    """Storage of objects within one transaction."""

    def read(self, ref: Ref) -> Object | None:
        """The object, or None."""
        ...

    def select(self, kind: Kind | None, namespace: str | None) -> list[Object]:
        """Objects of a kind (of all kinds when None), in one namespace or in all, by namespace and name."""
        ...

    def has_uid(self, uid: str) -> bool:
        """Whether an object with this uid exists."""
        ...

    def owned_by(self, uid: str) -> list[Object]:
        """Objects with an owner reference to this uid."""
        ...

    def write(self, ref: Ref, item: Object) -> Object:
        """Store under the next resourceVersion, which is set in the object returned."""
        ...

    def remove(self, ref: Ref, item: Object) -> None:
        """Forget an object; watchers hear of it."""
        ...


class Objects:
    """The verbs. Every method is to be called within one transaction of `rows`."""

    def __init__(
        self, rows: Rows, *, now: Callable[[], datetime], new_uid: Callable[[], str], admit: Admission
    ) -> None:
        self._rows = rows
        self._now = now
        self._new_uid = new_uid
        self._admit = admit

    def get(self, ref: Ref) -> Object:
        """Raises NotFoundError."""
        ref = normal(ref)
        item = self._rows.read(ref)
        if item is None:
            raise NotFoundError("NotFound", f"{shown(ref)} does not exist")
        return item

    def create(self, manifest: Object, *, manager: str) -> Object:
        """Raises ConflictError when it exists."""
        manifest = copied(manifest)
        prefix = manifest.get("metadata", {}).get("generateName")
        if prefix and not manifest["metadata"].get("name"):
            manifest["metadata"]["name"] = prefix + self._new_uid()[-6:]
        ref = ref_of(manifest)
        if self._rows.read(ref) is not None:
            raise ConflictError("AlreadyExists", f"{shown(ref)} already exists")
        created = without_server_fields(manifest)
        record_update(None, created, manager)
        return self._insert(ref, created)

    def apply(self, manifest: Object, *, manager: str, force: bool) -> Object:
        """Create, or merge by field ownership."""
        ref = ref_of(manifest)
        live = self._rows.read(ref)
        check_preconditions(manifest["metadata"], live, ref)
        stated = without_server_fields(manifest)
        if live is None:
            return self._insert(ref, first_apply(stated, manager=manager))
        merged = apply_to(live, stated, manager=manager, force=force)
        return self._replace(ref, live, merged, managed=merged["metadata"]["managedFields"])

    def patch(self, ref: Ref, patch: Mapping[str, Any], *, uid: str | None, manager: str) -> Object:
        """Merge patch of everything but status."""
        live = self._checked(ref, uid)
        check_preconditions(patch.get("metadata") or {}, live, normal(ref))
        wanted = {key: value for key, value in patch.items() if key != "status" or ref.kind not in WITH_STATUS}
        return self._update(ref, live, merge_patch(live, wanted), manager)

    def patch_status(self, ref: Ref, status: Mapping[str, Any], *, uid: str | None) -> Object:
        """Merge patch of status alone."""
        if ref.kind not in WITH_STATUS:
            raise NotFoundError("NotFound", f"{ref.kind.kind} has no status subresource")
        live = self._checked(ref, uid)
        patched = live | {"status": merge_patch(live.get("status"), status)}
        patched = self._admitted(patched, live)
        return self._rows.write(normal(ref), patched) if patched != live else live

    def scale(self, ref: Ref, replicas: int, *, manager: str) -> None:
        """spec.replicas alone."""
        if ref.kind not in WITH_SCALE:
            raise NotFoundError("NotFound", f"{ref.kind.kind} has no scale subresource")
        if replicas < 0:
            raise InvalidError("Invalid", f"{shown(ref)}: spec.replicas: must be at least 0, got {replicas}")
        live = self.get(ref)
        self._update(ref, live, merge_patch(live, {"spec": {"replicas": replicas}}), manager)

    def delete(self, ref: Ref, *, uid: str | None) -> None:
        """Now, or once the finalizers are gone; what it owned follows."""
        ref = normal(ref)
        live = self._rows.read(ref)
        if live is None:
            return
        check_preconditions({"uid": uid}, live, ref)
        if not live["metadata"].get("finalizers"):
            self._remove(ref, live)
        elif "deletionTimestamp" not in live["metadata"]:
            metadata = live["metadata"] | {"deletionTimestamp": timestamp(self._now())}
            self._rows.write(ref, live | {"metadata": metadata})

    def _checked(self, ref: Ref, uid: str | None) -> Object:
        live = self.get(ref)
        check_preconditions({"uid": uid}, live, ref)
        return live

    def _insert(self, ref: Ref, item: Object) -> Object:
        checked_name(ref)
        if ref.kind in OUR_KINDS:
            item["status"] = {"observedGeneration": -1}  # the schema's default: a fresh object is not finished
        item = self._admitted(item, None)
        metadata = item["metadata"]
        metadata["uid"] = self._new_uid()
        metadata["creationTimestamp"] = timestamp(self._now())
        if ref.kind in WITH_GENERATION:
            metadata["generation"] = 1
        written = self._rows.write(ref, item)
        self._collect([written])
        return written

    def _update(self, ref: Ref, live: Object, item: Object, manager: str) -> Object:
        item = with_server_fields(item, live)
        record_update(live, item, manager)
        return self._replace(normal(ref), live, item, managed=item["metadata"]["managedFields"])

    def _replace(self, ref: Ref, live: Object, item: Object, *, managed: list[Object]) -> Object:
        item = with_server_fields(item, live)
        item["metadata"]["managedFields"] = managed
        check_immutable(live, item, ref)
        item = self._admitted(item, live)
        if item == live:
            return live
        if ref.kind in WITH_GENERATION and _desired(item) != _desired(live):
            item["metadata"]["generation"] = live["metadata"].get("generation", 0) + 1
        written = self._rows.write(ref, item)
        if "deletionTimestamp" in written["metadata"] and not written["metadata"].get("finalizers"):
            self._remove(ref, written)
        else:
            self._collect([written])
        return written

    def _admitted(self, item: Object, old: Object | None) -> Object:
        if normal(ref_of(item)).kind not in OUR_KINDS:
            return copied(item)
        try:
            return copied(self._admit(item, old))
        except DeterministicError as error:
            raise InvalidError(error.reason, error.message) from error

    def _remove(self, ref: Ref, item: Object) -> None:
        self._rows.remove(ref, item)
        self._collect(self._rows.owned_by(item["metadata"]["uid"]))
        if ref.kind == NAMESPACE:
            for member in self._rows.select(None, ref.name):
                self.delete(ref_of(member), uid=None)

    def _collect(self, candidates: Iterable[Object]) -> None:
        """Delete those whose owners are all gone, as the garbage collector does soon after."""
        for item in candidates:
            owners = item["metadata"].get("ownerReferences") or []
            if owners and not any(self._rows.has_uid(owner["uid"]) for owner in owners):
                self.delete(ref_of(item), uid=None)


def _desired(item: Object) -> dict[str, Any]:
    """What the generation counts: everything but metadata and status."""
    return {key: value for key, value in item.items() if key not in ("metadata", "status")}
