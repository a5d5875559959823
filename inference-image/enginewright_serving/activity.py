"""One byte shared between the model's process and `serve`: is an execution running?

The server counts requests that wait and requests that are done, not those being executed, and it closes only when
clients give up their idle connections. So `serve` decides itself when nothing is in flight any more.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

ACTIVITY_VARIABLE = "ENGINE_ACTIVITY_FILE"


class Activity:
    """The model's side: `with activity:` around an execution. Without a file it does nothing."""

    def __init__(self, file: str) -> None:
        self._byte: mmap.mmap | None = None
        if file:
            handle = os.open(file, os.O_RDWR)
            try:
                self._byte = mmap.mmap(handle, 1)
            finally:
                os.close(handle)

    def set(self, *, working: bool) -> None:
        """Say whether anything is under way, where that is no block of code."""
        if self._byte is not None:
            self._byte[0] = int(working)

    def __enter__(self) -> None:
        self.set(working=True)

    def __exit__(self, *_: object) -> None:
        self.set(working=False)


def create(file: Path) -> Path:
    """Make the file, idle."""
    file.write_bytes(b"\0")
    return file


def busy(file: Path) -> bool:
    """Whether an execution runs now."""
    return file.read_bytes() != b"\0"
