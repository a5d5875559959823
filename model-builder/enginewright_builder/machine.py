"""What figures were measured on: processor and the flags that decide which kernels run."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import psutil

from enginewright_api.cpu import cpu_architecture, cpu_flags

_CPUINFO = Path("/proc/cpuinfo")
_TELLING_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "asimd", "i8mm", "sve",
)  # fmt: skip


def cpu_level(cpuinfo: Path = _CPUINFO) -> str:
    """Instruction set level of this machine's CPU."""
    return cpu_architecture(platform.machine(), cpu_flags(_read(cpuinfo)))


def describe_machine(cpuinfo: Path = _CPUINFO) -> str:
    """`model name, n CPUs, flags`."""
    fields: dict[str, str] = {}
    text = _read(cpuinfo)
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = cpu_flags(text)
    model = fields.get("model name") or platform.machine()
    if family := fields.get("cpu family"):
        model = f"{model} (family {family} model {fields.get('model', '?')})"
    told = [flag for flag in _TELLING_FLAGS if flag in flags]
    return ", ".join([model, f"{os.cpu_count()} CPUs", " ".join(told) or "no special flags"])


def _read(cpuinfo: Path) -> str:
    return cpuinfo.read_text() if cpuinfo.is_file() else ""


class Disturbance:
    """How much processor time others took between start and `share`: figures from a busy machine should say so."""

    def __init__(self, own_pids: Sequence[int]) -> None:
        self._own = own_pids
        self._begun = self._seen()

    def share(self) -> float:
        """Share of all processor time since the start that neither we nor the idle loop had, 0 to 1."""
        total, idle, own = (now - then for now, then in zip(self._seen(), self._begun, strict=True))
        return min(max((total - idle - own) / total, 0.0), 1.0) if total > 0 else 0.0

    def _seen(self) -> tuple[float, float, float]:
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        # guest time is contained in user time.
        total = sum(machine) - getattr(machine, "guest", 0.0) - getattr(machine, "guest_nice", 0.0)
        own = sum(_family_seconds(pid) for pid in self._own)
        return total, idle, own


def _family_seconds(pid: int) -> float:
    """User and system time of a process and its descendants."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total


def default_threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
