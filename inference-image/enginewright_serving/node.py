"""Facts of the machine in front of us."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from enginewright_api.cpu import cpu_architecture, cpu_flags
from enginewright_api.errors import DeterministicError

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU."""

    name: str
    compute_capability: str


def cpu_level(cpuinfo: Path = CPUINFO, machine: str | None = None) -> str:
    """Instruction set level of this machine's CPU."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    return cpu_architecture(machine or platform.machine(), cpu_flags(text))


def gpus(program: str = "nvidia-smi") -> tuple[Gpu, ...]:
    """NVIDIA GPUs that this container sees; none where the driver's tool is missing."""
    command = [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        return ()
    except subprocess.TimeoutExpired as error:
        raise DeterministicError(
            "AcceleratorMismatch", f"{program}: no answer within 20 s; the driver hangs"
        ) from error
    if done.returncode != 0:
        return ()
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
    return tuple(Gpu(name.strip(), capability.strip()) for name, _, capability in rows)
