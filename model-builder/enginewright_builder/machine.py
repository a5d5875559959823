"""What figures were measured on: processor and the flags that decide which kernels run."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_TELLING_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "asimd", "i8mm", "sve",
)  # fmt: skip


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """`model name, n CPUs, flags`."""
    fields: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    model = fields.get("model name") or platform.machine()
    if family := fields.get("cpu family"):
        model = f"{model} (family {family} model {fields.get('model', '?')})"
    told = [flag for flag in _TELLING_FLAGS if flag in flags]
    return ", ".join([model, f"{os.cpu_count()} CPUs", " ".join(told) or "no special flags"])


def default_threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
