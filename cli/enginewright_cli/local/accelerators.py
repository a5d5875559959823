"""The accelerator class `cpu` of local mode, read off this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.cpu import cpu_architecture, cpu_flags
from enginewright_api.meta import API_VERSION

_CPUINFO = Path("/proc/cpuinfo")


def detect_cpu() -> dict[str, Any]:
    """AcceleratorClass `cpu` for this machine."""
    flags = cpu_flags(_CPUINFO.read_text() if _CPUINFO.is_file() else "")
    formats = ["FP16", "INT8", "INT4"]
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        formats.insert(1, "BF16")
    found = AcceleratorClass.model_validate(
        {
            "apiVersion": API_VERSION,
            "kind": "AcceleratorClass",
            "metadata": {"name": "cpu"},
            "spec": {
                "vendor": "cpu",
                "architecture": cpu_architecture(platform.machine(), flags),
                "memoryGiB": round(psutil.virtual_memory().total / 2**30, 1),
                "formats": formats,
                "resource": {"name": "cpu", "quantity": len(os.sched_getaffinity(0))},
            },
        }
    )
    manifest = found.wire()
    del manifest["status"]
    return manifest
