"""What a place that keeps artifacts must be able to do. `Store` adds path checks, retries and content checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from enginewright_api.errors import DeterministicError


class NotInStoreError(DeterministicError):
    """Nothing is stored under the path."""

    def __init__(self, path: str, where: str) -> None:
        super().__init__("NotInStore", f"{path} is not in {where}")


@dataclass(frozen=True, slots=True)
class Entry:
    """Content in the store, as a listing tells it."""

    path: str
    size_bytes: int
    modified: datetime
    """When it was written, by the store's clock; aware."""


class Medium(Protocol):
    """One folder or bucket. Paths are checked by the caller. Methods raise the tree of `enginewright_api.errors`;
    TransientError means: try again."""

    def read(self, path: str) -> bytes:
        """Whole content. Raises NotInStoreError."""
        ...

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes start..stop-1, fewer at the end of the content. Raises NotInStoreError."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write at once or not at all, replacing what was there."""
        ...

    def put_new(self, path: str, data: bytes) -> bool:
        """Write unless something is there; of several at one time exactly one gets True."""
        ...

    def upload(self, local: Path, path: str) -> None:
        """Like put, from a file of any size."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes stored, None when nothing is."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Paths of all content below the folder `prefix` (all when empty), sorted."""
        ...

    def entries(self, prefix: str) -> Sequence[Entry]:
        """Like list, with size and time of each."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove the content at and below `prefix`; nothing there is not an error."""
        ...
