"""Batches divided among the cores against all cores in each operator: OpenVINO engines, both ways in turn.

    python -m benchmarks.dividing [--seconds 3] [--threads N] [--workdir DIR] [--json FILE]

INT8 engines of MiniLM and of BERT-base's shape, in process: what differs is the runner's alone. Case `b1` is not
divided and shows what is noise. Answers must be equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, built_engine
from benchmarks.encoder import request
from benchmarks.in_turn import medians
from benchmarks.models.bert_base import random_encoder
from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_api.recipe import BuildRequest
from enginewright_builder.machine import default_threads, describe_machine
from enginewright_serving.triton.openvino_runner import OpenVinoRunner, parts

SHAPES = ((1, 128), (2, 16), (8, 16), (32, 16), (2, 128), (8, 128), (32, 128))
_NEWS = {"builtin": {"name": "news-en"}}


class Whole(OpenVinoRunner):
    """The same engine, never divided."""

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        super().__init__(entry, engine, threads)
        self._streams = []


def bert_base() -> BuildRequest:
    """Random weights of BERT-base's shape, INT8; they compute as long as others and are judged on a few rows."""
    quantization = {"format": "INT8", "method": "SmoothQuant", "calibration": {"samples": 32, "dataset": _NEWS}}
    recipe = {
        "source": {"objectStore": {"uri": random_encoder().as_uri()}}, "task": "Embedding", "backend": "OpenVINO",
        "limits": {"maxBatchSize": 32, "maxInputTokens": 128}, "quantization": quantization,
    }  # fmt: skip
    evidence = {"dataset": _NEWS, "metric": "CosineSimilarity", "maxDrop": 0.05, "confidence": 0.95, "samples": 8}
    return build_request(recipe, evidence)


def compared(name: str, folder: Path, threads: int, seconds: float) -> list[dict[str, Any]]:
    """A row a shape: milliseconds of both, and their ratio."""
    engine = EngineDescription.model_validate_json((folder / ENGINE_DESCRIPTION).read_bytes())
    divided, whole = (kind(folder / "engine" / engine.entry, engine, threads) for kind in (OpenVinoRunner, Whole))
    found = []
    for batch, tokens in SHAPES:
        ids = np.random.default_rng(0).integers(1000, 20000, (batch, tokens))
        tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if not np.array_equal(np.array(divided.run(tensors)), whole.run(tensors)):
            sys.exit(f"{name}: batch {batch} of {tokens} tokens: answers differ")
        ours, reference = medians(divided, whole, tensors, seconds=seconds)
        found.append(
            {
                "case": f"{name}/b{batch}s{tokens}",
                "divided": len(parts(batch, tokens, threads)),
                "ours": ours,
                "reference": reference,
                "ratio": round(reference / ours, 3),
                "unit": "ms p50",
            }
        )
    return found


def main() -> int:
    """Exit code 1 when answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time a shape")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-dividing")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    workdir, found = given.workdir.resolve(), []
    for name, wanted in (("minilm", request()), ("bert-base", bert_base())):
        folder = built_engine(wanted, workdir, given.threads, name=name)
        found += compared(name, folder, given.threads, given.seconds)
    shown = Table("case", "parts", "divided", "whole", "ratio")
    for row in found:
        shown.add_row(
            row["case"], str(row["divided"]), f"{row['ours']:.2f} ms", f"{row['reference']:.2f} ms",
            f"{row['ratio']:.2f} ×",
        )  # fmt: skip
    Console(width=120).print(shown)
    Console().print(f"{describe_machine()}; {given.threads} threads")
    if given.json:
        given.json.write_text(json.dumps({"name": "dividing", "machine": describe_machine(), "rows": found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
