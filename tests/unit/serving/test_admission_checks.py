"""What an engine needs against what a node has, GPUs included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.manifest import Manifest
from enginewright_serving.admission import check_accelerator, check_description
from enginewright_serving.node import Gpu
from tests.serving.artifacts import manifest_of
from tests.unit.serving.test_model_config import engine

H100, L4 = Gpu("NVIDIA H100", "9.0"), Gpu("NVIDIA L4", "8.9")


def manifest(folder: Path, **accelerator: Any) -> Manifest:
    (folder / "engine.json").write_text(json.dumps(engine().wire()))
    return manifest_of(folder, accelerator={"acceleratorClass": "c", **accelerator})


@pytest.mark.parametrize(
    ("needs", "cpu", "present", "says"),
    [
        ({"vendor": "cpu", "architecture": "x86_64-avx512"}, "x86_64-amx", [], None),
        ({"vendor": "cpu", "architecture": ""}, "aarch64", [], None),
        ({"vendor": "cpu", "architecture": "x86_64-amx"}, "x86_64-avx2", [H100], "accelerator.architecture"),
        ({"vendor": "nvidia", "computeCapability": "9.0"}, "x86_64", [H100, H100], None),
        ({"vendor": "nvidia", "computeCapability": "9.0"}, "x86_64", [H100, L4], "has 8.9 (NVIDIA L4)"),
        ({"vendor": "nvidia", "computeCapability": "9.0"}, "x86_64", [], "accelerator.vendor"),
        ({"vendor": "tpu"}, "x86_64", [H100], "accelerator.vendor: tpu"),
    ],
)
def test_accelerators(tmp_path: Path, needs: dict[str, str], cpu: str, present: list[Gpu], says: str | None) -> None:
    if says is None:
        check_accelerator(manifest(tmp_path, **needs), cpu, lambda: present, "class-a")
        return
    with pytest.raises(DeterministicError) as caught:
        check_accelerator(manifest(tmp_path, **needs), cpu, lambda: present, "class-a")
    assert caught.value.reason == "AcceleratorMismatch"
    assert says in caught.value.message


def test_a_cpu_engine_never_asks_for_gpus(tmp_path: Path) -> None:
    def unexpected() -> list[Gpu]:
        raise AssertionError("the driver's tool is slow and may be absent")

    check_accelerator(manifest(tmp_path, vendor="cpu"), "x86_64", unexpected, "")


@pytest.mark.parametrize(
    ("field", "value"),
    [("runtimeVersion", "2"), ("runtimePackage", "other"), ("task", "Classification"), ("backend", "Torch")],
)
def test_the_description_must_be_the_manifests(tmp_path: Path, field: str, value: str) -> None:
    listed = manifest(tmp_path, vendor="cpu")
    check_description(listed, engine())
    with pytest.raises(DeterministicError, match=field):
        check_description(listed, engine(**{field: value}))
