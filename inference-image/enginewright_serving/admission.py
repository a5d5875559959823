"""May this engine run here? Pure checks of a manifest against machine and software; a refusal names the field."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enginewright_api.cpu import cpu_runs
from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.manifest import Manifest
from enginewright_serving.node import Gpu

CPU_VENDORS = frozenset({"cpu", "intel", "amd"})
"""Only CPUs of Intel and AMD are served, so as vendors they mean CPUs."""


def check_digest(found: str, wanted: str) -> None:
    """The manifest must be the one that was decided on."""
    if found != wanted:
        raise DeterministicError(
            "DigestMismatch",
            f"manifest.json: sha256 is {found}, wanted {wanted}; the artifact was replaced, build it again",
        )


def check_accelerator(manifest: Manifest, cpu: str, gpus: Callable[[], Sequence[Gpu]], accelerator_class: str) -> None:
    """What the engine was compiled for must be what this node has."""
    wanted = manifest.accelerator
    here = f"this node (class {accelerator_class})" if accelerator_class else "this node"
    if wanted.vendor in CPU_VENDORS:
        if not cpu_runs(wanted.architecture, cpu):
            raise DeterministicError(
                "AcceleratorMismatch",
                f"accelerator.architecture: the engine needs {wanted.architecture}, {here} has {cpu};"
                " correct the class's node selector or build for this CPU",
            )
        return
    if wanted.vendor != "nvidia":
        raise DeterministicError("AcceleratorMismatch", f"accelerator.vendor: {wanted.vendor} is not served")
    present = list(gpus())
    if not present:
        raise DeterministicError(
            "AcceleratorMismatch", f"accelerator.vendor: the engine needs an nvidia GPU, {here} has none"
        )
    for gpu in present:
        if gpu.compute_capability != wanted.compute_capability:
            raise DeterministicError(
                "AcceleratorMismatch",
                f"accelerator.computeCapability: the engine needs {wanted.compute_capability}, {here} has"
                f" {gpu.compute_capability} ({gpu.name}); correct the class's node selector or build for this GPU",
            )


def check_runtime(manifest: Manifest, installed: Callable[[str], str | None]) -> None:
    """The runtime that loads the engine must be the one it was compiled with."""
    wanted = manifest.runtime
    found = installed(wanted.package)
    if found is None:
        raise DeterministicError(
            "RuntimeMismatch", f"runtime.package: {wanted.package} is not installed here; use its serving image"
        )
    if found != wanted.version:
        raise DeterministicError(
            "RuntimeMismatch",
            f"runtime.version: the engine was built with {wanted.package} {wanted.version}, here is {found};"
            " use the matching serving image or build again",
        )


def check_description(manifest: Manifest, engine: EngineDescription) -> None:
    """engine.json and manifest must speak of the same runtime and task."""
    pairs = (
        ("runtimePackage", engine.runtime_package, manifest.runtime.package),
        ("runtimeVersion", engine.runtime_version, manifest.runtime.version),
        ("task", engine.task.value, manifest.recipe.task.value),
        ("backend", engine.backend.value, manifest.runtime.backend),
    )
    for field, described, listed in pairs:
        if described != listed:
            raise DeterministicError(
                "InvalidEngine", f"engine.json: {field} is {described}, the manifest says {listed}; build it again"
            )
