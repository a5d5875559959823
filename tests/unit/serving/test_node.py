"""Facts of the machine: CPU levels, flags, threads, GPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enginewright_api.cpu import cpu_architecture, cpu_flags, cpu_runs
from enginewright_api.errors import DeterministicError
from enginewright_serving.node import Gpu, cpu_level, gpus
from enginewright_serving.threads import available_cores, engine_threads

AVX2 = {"avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
AMX = AVX512 | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}
ZEN4 = AVX512 | {"avx512_vnni", "avx512_bf16", "sse4a"}


@pytest.mark.parametrize(
    ("machine", "flags", "level"),
    [
        ("x86_64", set(), "x86_64"),
        ("amd64", AVX2, "x86_64-avx2"),
        ("x86_64", AVX2 - {"fma"}, "x86_64"),
        ("x86_64", AVX512, "x86_64-avx512"),
        ("x86_64", AVX512 - {"avx512vl"}, "x86_64-avx2"),
        ("x86_64", AVX512 | {"avx512_vnni"}, "x86_64-avx512-vnni"),
        ("x86_64", AMX, "x86_64-amx"),
        ("x86_64", AMX - {"avx512_vnni"}, "x86_64-avx512"),  # a level needs those below it
        ("x86_64", ZEN4, "x86_64-zen4"),
        ("x86_64", ZEN4 - {"sse4a"}, "x86_64-avx512-vnni"),  # an Intel CPU whose AMX is hidden: bf16 is slow there
        ("x86_64", ZEN4 - {"avx512_bf16"}, "x86_64-avx512-vnni"),
        ("arm64", {"asimd"}, "aarch64"),
        ("aarch64", set(), "aarch64"),
    ],
)
def test_levels(machine: str, flags: set[str], level: str) -> None:
    assert cpu_architecture(machine, flags) == level


@pytest.mark.parametrize(
    ("engine", "machine", "runs"),
    [
        ("", "aarch64", True),
        ("x86_64", "x86_64-amx", True),
        ("x86_64-amx", "x86_64-amx", True),
        ("x86_64-amx", "x86_64-avx512-vnni", False),
        ("x86_64-avx2", "x86_64", False),
        ("x86_64-zen4", "x86_64-amx", True),
        ("x86_64-amx", "x86_64-zen4", False),
        ("x86_64-zen4", "x86_64-avx512-vnni", False),
        ("x86_64", "aarch64", False),
        ("aarch64", "x86_64-amx", False),
        ("riscv64", "riscv64", True),
        ("x86_64-unknown", "x86_64-amx", False),
    ],
)
def test_what_runs_where(engine: str, machine: str, runs: bool) -> None:
    assert cpu_runs(engine, machine) is runs


def test_flags_are_those_of_every_core(tmp_path: Path) -> None:
    text = "processor : 0\nflags\t\t: fpu avx2 fma f16c\n\nprocessor : 1\nflags\t\t: fpu avx2 fma\nmodel name : x\n"
    assert cpu_flags(text) == {"fpu", "avx2", "fma"}
    assert cpu_flags("Features\t: fp asimd\n") == {"fp", "asimd"}
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_level(tmp_path / "cpuinfo", "x86_64") == "x86_64"
    assert cpu_level(tmp_path / "absent", "aarch64") == "aarch64"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_quota_bounds_the_cores(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores(tmp_path) == (limit or len(os.sched_getaffinity(0)))


def test_threads_given_by_the_environment_win() -> None:
    assert engine_threads({"ENGINE_THREADS": "7"}) == 7
    assert engine_threads({}) == available_cores()
    for wrong in ("0", "two", "-1", "1.5", "99999"):
        with pytest.raises(DeterministicError, match="ENGINE_THREADS"):
            engine_threads({"ENGINE_THREADS": wrong})


def test_gpus_are_read_from_the_drivers_tool(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 9.0'\necho 'NVIDIA L4, 8.9'\n")
    tool.chmod(0o755)
    assert gpus(str(tool)) == (Gpu("NVIDIA H100 80GB HBM3", "9.0"), Gpu("NVIDIA L4", "8.9"))
    tool.write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    assert gpus(str(tool)) == ()
    assert gpus(str(tmp_path / "absent")) == ()
