"""Removes what nothing uses, safely beside everything else that goes on.

An artifact goes in four steps, each one write:

1. a tombstone that holds the manifest takes the manifest's place: from now on nobody finds the artifact;
2. the references are read once more; one that came meanwhile brings the manifest back, byte for byte;
3. the tombstone forgets the manifest: the point of no return;
4. files and evidence are deleted, the tombstone last.

Whoever begins to use an artifact first creates an EngineBuild and then looks into the store. If it found the manifest,
it looked before step 1, so its EngineBuild was there before step 2 and is seen there. A publisher that meets a
tombstone tries again later. After a crash the next collection goes on from the tombstone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from enginewright_api.identity import canonical_json
from enginewright_api.model_base import ApiModel
from enginewright_store.artifact import manifest_path
from enginewright_store.garbage.inventory import Holding, HoldingKind, inventory
from enginewright_store.garbage.lock import Clock, Held, locked
from enginewright_store.garbage.retention import Decision, Retention, Verdict, decide, references
from enginewright_store.medium import NotInStoreError
from enginewright_store.store import Store
from enginewright_store.tombstone import Removal, Tombstone, read_tombstone

_MARKS = "garbage/unused.json"
_AT_ONCE = 16

ReadReferences = Callable[[], AbstractSet[str]]
"""First 16 digits of all keys that objects name, read afresh. Raises when they cannot all be read."""


class Marks(ApiModel):
    """When a collection first found a key unused."""

    unused_since: dict[str, datetime] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection decided and did."""

    decisions: Sequence[Decision]
    removed: Sequence[Holding] = ()
    restored: Sequence[Holding] = ()
    """Found again to be in use while their removal had begun."""
    left: Sequence[Holding] = ()
    """Time was up before these; the next collection takes them."""

    @property
    def removed_bytes(self) -> int:
        """Freed."""
        return sum(holding.size_bytes for holding in self.removed)


@dataclass(slots=True)
class _Done:
    removed: list[Holding] = field(default_factory=list)
    restored: list[Holding] = field(default_factory=list)
    left: list[Holding] = field(default_factory=list)


def collect(
    store: Store,
    read_references: ReadReferences,
    retention: Retention,
    *,
    holder: str,
    dry_run: bool = False,
    clock: Clock = lambda: datetime.now(UTC),
) -> Collection:
    """Decide, and unless `dry_run` remove. Raises TransientError CollectionRunning, and what store or cluster raise."""
    if dry_run:
        return Collection(_decisions(store, read_references(), retention, clock()))
    with locked(store, holder, clock) as held:
        used = read_references()
        decisions = _decisions(store, used, retention, clock())
        _mark(store, decisions)
        done = _Done()
        going = [decision.holding for decision in decisions if decision.verdict is Verdict.REMOVE]
        for start in range(0, len(going), _AT_ONCE):
            _remove(store, going[start : start + _AT_ONCE], read_references, held, done)
        for decision in decisions:
            if decision.verdict is Verdict.KEEP and decision.holding.kind is HoldingKind.REMOVAL:
                _bring_back(store, decision.holding, done)
        return Collection(decisions, done.removed, done.restored, done.left)


def _decisions(store: Store, used: AbstractSet[str], retention: Retention, now: datetime) -> Sequence[Decision]:
    return decide(inventory(store), used, _marks(store).unused_since, retention, now)


def _marks(store: Store) -> Marks:
    try:
        return Marks.model_validate_json(store.read(_MARKS))
    except (NotInStoreError, ValidationError):
        return Marks()  # a lost or damaged file only makes everything wait for the grace time again


def _mark(store: Store, decisions: Sequence[Decision]) -> None:
    since = {decision.holding.key: decision.unused_since for decision in decisions if decision.unused_since is not None}
    if since != _marks(store).unused_since:
        store.put(_MARKS, canonical_json(Marks(unused_since=since).wire()))


def _remove(
    store: Store, holdings: Sequence[Holding], read_references: ReadReferences, held: Held, done: _Done
) -> None:
    """Some at once, so that the references are read once for all of them."""
    if not held.in_time:
        done.left.extend(holdings)
        return
    condemned: list[tuple[Holding, Tombstone]] = []
    for holding in holdings:
        if holding.kind is HoldingKind.STAGE:
            _delete_stage(store, holding)
            done.removed.append(holding)
        elif (tombstone := _condemn(store, holding)) is not None:
            condemned.append((holding, tombstone))
    used = read_references() if condemned else frozenset()
    for holding, tombstone in condemned:
        if references(holding, used):
            _revoke(store, holding, tombstone, done)
        else:
            store.put(manifest_path(holding.key), Tombstone(state=Removal.DELETING).content())
            _finish(store, holding)
            done.removed.append(holding)


def _condemn(store: Store, holding: Holding) -> Tombstone | None:
    """Put the tombstone, and the manifest into it; one that is there already stays.

    None when somebody published where only files were: that artifact is new.
    """
    path = manifest_path(holding.key)
    if holding.kind is HoldingKind.UNFINISHED:
        tombstone = Tombstone(state=Removal.DELETING)
        if store.put(path, tombstone.content(), if_absent=True):
            return tombstone
        return read_tombstone(store.read(path))
    present = store.read(path)
    existing = read_tombstone(present)
    if existing is not None:
        return existing
    tombstone = Tombstone(state=Removal.CONDEMNED, manifest=present.decode())
    store.put(path, tombstone.content())
    return tombstone


def _bring_back(store: Store, holding: Holding, done: _Done) -> None:
    """A removal that was cut off, of something that is in use again."""
    tombstone = _condemn(store, holding)
    if tombstone is not None:
        _revoke(store, holding, tombstone, done)


def _revoke(store: Store, holding: Holding, tombstone: Tombstone, done: _Done) -> None:
    """Give the manifest back; where files may be gone, clear the place so that it can be built again."""
    if tombstone.state is Removal.CONDEMNED:
        store.put(manifest_path(holding.key), tombstone.manifest.encode())
        done.restored.append(holding)
    else:
        _finish(store, holding)
        done.removed.append(holding)


def _finish(store: Store, holding: Holding) -> None:
    """Everything under the key, the tombstone last: until then no publisher can take the key."""
    tombstone = manifest_path(holding.key)
    for folder in holding.folders:
        for path in store.list(folder):
            if path != tombstone:
                store.delete(path)
    store.delete(tombstone)


def _delete_stage(store: Store, holding: Holding) -> None:
    """The record first: without it the rest is not read, and a reader that is cut off makes the result anew."""
    store.delete(f"stages/{holding.key}/stage.json")
    for folder in holding.folders:
        store.delete(folder)
