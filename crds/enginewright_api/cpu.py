"""Instruction set levels of CPUs: what an engine was compiled for against what a machine has."""

from __future__ import annotations

from collections.abc import Iterable

_AVX2 = frozenset({"avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI = _AVX512 | {"avx512_vnni"}
# Flags of /proc/cpuinfo that each level needs; a machine runs the engines of its own level and of those before it.
_X86_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("x86_64", frozenset()),
    ("x86_64-avx2", _AVX2),
    ("x86_64-avx512", _AVX512),
    ("x86_64-avx512-vnni", _VNNI),
    # AMD from Zen 4 on; sse4a, which only AMD has, tells it from Intel CPUs whose AMX is hidden.
    ("x86_64-zen4", _VNNI | {"avx512_bf16", "sse4a"}),
    ("x86_64-amx", _VNNI | {"amx_tile", "amx_int8", "amx_bf16"}),
)
_X86_ORDER = tuple(name for name, _ in _X86_LEVELS)
_FAMILIES = {"amd64": "x86_64", "arm64": "aarch64"}


def cpu_architecture(machine: str, flags: Iterable[str]) -> str:
    """Highest level that a CPU reaches: `machine` as uname gives it, `flags` as /proc/cpuinfo lists them."""
    family = _FAMILIES.get(machine, machine)
    if family != "x86_64":
        return family
    present = frozenset(flags)
    return [name for name, needed in _X86_LEVELS if needed <= present][-1]


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Flags that every core has, from the text of /proc/cpuinfo (`flags` on x86, `Features` on Arm)."""
    per_core = [
        frozenset(value.split())
        for name, _, value in (line.partition(":") for line in cpuinfo.splitlines())
        if name.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*per_core) if per_core else frozenset()


def cpu_runs(engine_architecture: str, machine_architecture: str) -> bool:
    """Whether an engine for one level runs on a machine of another; an engine without a level runs anywhere.

    A level that is not in the table runs only on itself.
    """
    if engine_architecture in ("", machine_architecture):
        return True
    if engine_architecture not in _X86_ORDER or machine_architecture not in _X86_ORDER:
        return False
    return _X86_ORDER.index(engine_architecture) <= _X86_ORDER.index(machine_architecture)


def gains_from_bf16(architecture: str) -> bool:
    """Whether CPUs of this level multiply bf16 faster than float32: with AMX tiles, and AMD's from Zen 4 on.

    On Intel CPUs with avx512_bf16 alone encoders are slower in bf16 than in float32, so it does not count.
    """
    return any(level in architecture for level in ("amx", "zen4"))


def computes_bf16(architecture: str) -> bool:
    """Whether CPUs of this level have instructions for bf16 at all."""
    return "bf16" in architecture or gains_from_bf16(architecture)
