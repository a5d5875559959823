"""Shared-memory regions of the server's Python backend: named after us, so that none stays behind.

A server that is killed, and often one that is stopped, leaves its region (1 MiB and more) in /dev/shm.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from enginewright_serving.events import log

FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
_PREFIX = "enginewright"


def region_prefix(pid: int) -> str:
    """Prefix of the regions of the `serve` with this process id."""
    return f"{_PREFIX}-{pid}-"


def remove_regions(pid: int, folder: Path = FOLDER) -> int:
    """Remove the regions of one `serve`, whose server must have ended. Returns how many."""
    found = list(folder.glob(f"{region_prefix(pid)}*"))
    for region in found:
        region.unlink(missing_ok=True)
    return len(found)


def remove_abandoned_regions(folder: Path = FOLDER) -> int:
    """Remove what earlier runs left that were killed. Another user's regions are left alone."""
    removed = 0
    for region in folder.glob(f"{_PREFIX}-*"):
        match = re.match(rf"{_PREFIX}-(\d+)-", region.name)
        if match and not Path(f"/proc/{match[1]}").exists() and os.access(folder, os.W_OK):
            try:
                region.unlink(missing_ok=True)
                removed += 1
            except PermissionError as error:
                log("shared-memory-kept", region=region.name, error=error.strerror)
    return removed
