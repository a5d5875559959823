"""ONNX Runtime with and without its node for residual and normalisation, which the server keeps it from making.

    python -m benchmarks.fusing [--seconds 3] [--threads N] [--workdir DIR] [--json FILE]

MiniLM on ONNX Runtime in INT8 (Dynamic), in process, both ways in turn: the same file, opened as the server opens it
and with the optimiser as it comes. In float32 the optimiser does not find the pattern, and both are the same.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, built_engine
from benchmarks.encoder import PACKAGE
from benchmarks.in_turn import medians
from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_api.recipe import BuildRequest
from enginewright_builder.machine import default_threads, describe_machine
from enginewright_serving.triton import onnxruntime_runner
from enginewright_serving.triton.onnxruntime_runner import OnnxRuntimeRunner

SHAPES = ((1, 16), (1, 128), (8, 64), (8, 128), (32, 128), (4, 256))


def request() -> BuildRequest:
    """MiniLM for ONNX Runtime, judged on a few rows."""
    recipe = {
        "source": {"package": {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE), "path": "model"}},
        "task": "Embedding",
        "backend": "ONNXRuntime",
        "limits": {"maxBatchSize": 32, "maxInputTokens": 256},
        "quantization": {"format": "INT8", "method": "Dynamic"},
    }
    news = {"builtin": {"name": "news-en"}}
    return build_request(
        recipe,
        {"dataset": news, "metric": "CosineSimilarity", "maxDrop": 0.05, "confidence": 0.95, "samples": 64},
    )


def compared(folder: Path, threads: int, seconds: float) -> list[dict[str, Any]]:
    """A row a shape: milliseconds of both, and their ratio."""
    engine = EngineDescription.model_validate_json((folder / ENGINE_DESCRIPTION).read_bytes())
    entry = folder / "engine" / engine.entry
    ours = OnnxRuntimeRunner(entry, engine, threads)
    with patch.object(onnxruntime_runner, "SLOWER", ()):
        reference = OnnxRuntimeRunner(entry, engine, threads)
    found = []
    for batch, tokens in SHAPES:
        ids = np.random.default_rng(0).integers(1000, 20000, (batch, tokens))
        tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        took = medians(ours, reference, tensors, seconds=seconds)
        found.append(
            {
                "case": f"minilm/b{batch}s{tokens}",
                "ours": took[0],
                "reference": took[1],
                "ratio": round(took[1] / took[0], 3),
                "unit": "ms p50",
            }
        )
    return found


def main() -> int:
    """Exit code 0: there is no bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time a shape")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-fusing")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    folder = built_engine(request(), given.workdir.resolve(), given.threads, name="minilm")
    found = compared(folder, given.threads, given.seconds)
    shown = Table("case", "as served", "optimiser as it comes", "ratio")
    for row in found:
        shown.add_row(row["case"], f"{row['ours']:.2f} ms", f"{row['reference']:.2f} ms", f"{row['ratio']:.2f} ×")
    Console(width=120).print(shown)
    Console().print(f"{describe_machine()}; {given.threads} threads")
    if given.json:
        given.json.write_text(json.dumps({"name": "fusing", "machine": describe_machine(), "rows": found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
