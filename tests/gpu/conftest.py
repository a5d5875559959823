"""What the tests of this folder need; each skip says what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

import pytest

from enginewright_api.nvidia import matrix
from enginewright_serving.node import Gpu, gpus

TRITON = Path("/opt/tritonserver/bin/tritonserver")


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    """The first GPU of this machine."""
    found = gpus()
    if not found:
        pytest.skip("no NVIDIA GPU on this machine (nvidia-smi lists none)")
    return found[0]


@pytest.fixture(scope="session")
def tensorrt_llm(gpu: Gpu) -> str:
    """Version of TensorRT-LLM."""
    if importlib.util.find_spec("tensorrt_llm") is None:
        pytest.skip(f"tensorrt_llm is not installed; run in {matrix().images.tensorrt_llm.format(release='YY.MM')}")
    return importlib.metadata.version("tensorrt_llm")


@pytest.fixture(scope="session")
def trtllm_build(tensorrt_llm: str) -> str:
    """Path of trtllm-build."""
    found = shutil.which("trtllm-build")
    if found is None:
        last = matrix().last_tensorrt_llm_with_engines
        pytest.skip(f"trtllm-build is not there: TensorRT-LLM {tensorrt_llm} is newer than {last}")
    return found


@pytest.fixture(scope="session")
def tensorrt(gpu: Gpu) -> str:
    """Version of TensorRT's Python bindings."""
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip(f"tensorrt is not installed; run in {matrix().images.triton.format(release='YY.MM')} (see README)")
    return importlib.metadata.version("tensorrt")


@pytest.fixture(scope="session")
def tritonserver(gpu: Gpu) -> Path:
    """NVIDIA's own server, which has GPU backends; the one in the wheel has none."""
    if not TRITON.exists():
        pytest.skip(f"{TRITON} is not there; run in one of NVIDIA's Triton images")
    return TRITON
