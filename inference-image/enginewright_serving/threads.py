"""How many threads an engine gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from enginewright_api.errors import DeterministicError

THREADS_VARIABLE = "ENGINE_THREADS"


def engine_threads(environment: Mapping[str, str]) -> int:
    """ENGINE_THREADS, else the cores this process may use."""
    given = environment.get(THREADS_VARIABLE, "")
    if not given:
        return available_cores()
    if not given.isdecimal() or not 1 <= int(given) <= 1024:
        raise DeterministicError("InvalidThreads", f"{THREADS_VARIABLE}={given!r}: must be a number from 1 to 1024")
    return int(given)


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores of the affinity mask, fewer where the control group's CPU quota (v2 or v1) allows fewer."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota(cgroup: Path) -> float | None:
    """CPUs that the quota allows, None without one."""
    try:
        allowed, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            allowed = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not allowed.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max" (v2) and -1 (v1) mean no quota
    return int(allowed) / int(period)
