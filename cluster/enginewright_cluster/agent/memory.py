"""Memory of a process and its descendants, from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        for children in (_PROC / str(current) / "task").glob("*/children"):
            with contextlib.suppress(OSError):  # gone meanwhile
                waiting.extend(int(child) for child in children.read_text().split())
    return found


def tree_bytes(pid: int) -> int:
    """Private resident memory of all, plus the largest shared part once: pages that processes share count once."""
    private, shared = 0, [0]
    for member in tree(pid):
        with contextlib.suppress(OSError):
            _, resident, common, *_ = (int(word) for word in (_PROC / str(member) / "statm").read_text().split())
            private += resident - common
            shared.append(common)
    return (private + max(shared)) * _PAGE_BYTES
