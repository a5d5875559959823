"""Memory and disk: what there is, what was used, what a build will need."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from enginewright_api.errors import DeterministicError

_INTERVAL_SECONDS = 0.25
_GROWTH, _WALK_SECONDS = 1.02, 5.0
"""Shared pages are looked at when resident ones have grown by this, or so long after the last time: to tell, the kernel
walks all pages and holds up who wants new ones."""
_BASE_MEMORY_BYTES = 1536 * 2**20
"""Builder, toolchain and two servers with an empty model; measured 1.3 GiB."""
_MEMORY_PER_WEIGHT = 6.0
"""Copies of the float32 weights that are alive at once: torch, graph, calibration, two servers, page cache of one."""
_DISK_PER_WEIGHT = 5.0
"""Checkpoint, graph, quantised graph, engine, upload."""
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this build may use."""

    memory_bytes: int
    disk_bytes: int

    @classmethod
    def of(cls, workdir: Path) -> Capacity:
        """The smaller of the machine's memory and the container's limit; free space below `workdir`."""
        return cls(min([psutil.virtual_memory().total, *_limits()]), shutil.disk_usage(workdir).free)


def check_fits(weights_bytes: int, capacity: Capacity) -> None:
    """Refuse at once what would be killed or run out of disk after minutes. `weights_bytes` in float32.

    Raises DeterministicError BuildWillNotFit with both figures: another class would not help.
    """
    memory = int(_BASE_MEMORY_BYTES + _MEMORY_PER_WEIGHT * weights_bytes)
    if memory > capacity.memory_bytes:
        raise DeterministicError(
            "BuildWillNotFit",
            f"building needs about {_gib(memory)} GiB of memory and {_gib(capacity.memory_bytes)} GiB are there;"
            " give the build more memory or choose a smaller model",
        )
    disk = int(_DISK_PER_WEIGHT * weights_bytes)
    if disk > capacity.disk_bytes:
        raise DeterministicError(
            "BuildWillNotFit",
            f"building needs about {_gib(disk)} GiB of disk and {_gib(capacity.disk_bytes)} GiB are free;"
            " give the build a larger volume",
        )


class MemoryWatch:
    """Largest resident size of a process and everything below it, within 2 % of growth, sampled from a thread.

    Most samples cost a few file reads: what is watched may be training, or being timed.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        most, walked_at = 0.0, 0.0
        while True:
            mapped, now = sum(_mapped_bytes(member) for member in _family(self._process)), time.monotonic()
            if mapped > _GROWTH * most or now - walked_at > _WALK_SECONDS:
                most, walked_at = max(most, mapped), now
                self.peak_bytes = max(self.peak_bytes, resident_bytes(self._process))
            if self._stop.wait(_INTERVAL_SECONDS):
                return


def resident_bytes(process: psutil.Process) -> int:
    """Resident size of a process and its descendants; those that are gone count nothing."""
    return sum(_proportional_bytes(member.pid) or _mapped_bytes(member) for member in _family(process))


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _mapped_bytes(process: psutil.Process) -> int:
    """With shared pages counted whole; cheap."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _proportional_bytes(pid: int) -> int:
    """Resident size with shared pages divided among their users: torch is mapped by several processes here."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _limits() -> list[int]:
    found = []
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return found


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"
