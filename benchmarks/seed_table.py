"""How fast each recipe makes a BERT-base shape, and what the same recipe costs in accuracy on a model that learnt.

    python -m benchmarks.seed_table [--full | --alone | --patient] [--steps N] [--threads N] [--workdir DIR]
                                   [--json FILE]

Speed: a BERT-base-shaped classifier with random weights, batch 32 × 128 tokens, eager PyTorch in float32 = 1 ×; both
behind the real server, asked in turn. Random weights compute as long as trained ones, so steps that only learn or look
(distillation, recovery, calibration, importance) are cut short here. Speed is measured anew in each run,
except where one build gives both (`--full`, the student of BERT-tiny's shape).
Accuracy: the same recipe, with its training, on MiniLM with a classification head trained on texts that people rated
(builtin set `reviews-en`): accuracy, drop with its upper bound at 95 % confidence, the gate's verdict at a budget of
1 %. Students and pruned models learn from the model's own answers to those texts, and to others of their kind that
nobody labelled (`benchmarks.models.texts`). What an earlier run built and judged in `--workdir` is found again.
`--full` trains a BERT-base-shaped classifier first (about an hour on two cores, once) and takes speed and accuracy from
that one model. `--alone` runs one technique each instead of combinations; its student is of BERT-tiny's shape
(Turc 2019), a fifth of MiniLM's size, and its speed and size are those against MiniLM.
`--patient` runs a recipe that needs more training than the others' twenty minutes leave.

Case `best` is the fastest recipe whose gate passes. Bar: 8 ×.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, run_build
from benchmarks.models.bert_base import random_classifier
from benchmarks.models.classifier import tiny_classifier, trained_classifier
from benchmarks.models.texts import texts_file
from enginewright_api.outcome import BuildOutcome
from enginewright_builder.machine import default_threads, describe_machine

BAR = 8.0
MAX_DROP = 0.01
BATCH, TOKENS = 32, 128
DATASET = {"builtin": {"name": "reviews-en"}}
_FEW = 32
"""Rows on which random weights are judged, and calibrated: what comes of it is not used."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One recipe; shares and steps as a user would write them."""

    name: str
    kept_layers: float | None = None
    """Share of the layers that a distilled student keeps."""
    student: bool = False
    """Whether a model of BERT-tiny's shape is the student."""
    thinner: float | None = None
    """Share of heads and neurons that goes."""
    energy: float | None = None
    """Share of squared singular values that low rank keeps."""
    int8: bool = True
    steps: int = 250
    """Optimiser steps of distillation, and again of recovery."""

    def blocks(self, layers: int, *, learns: bool) -> dict[str, Any]:
        """The recipe's blocks for a model with so many layers."""
        found: dict[str, Any] = {}
        if self.int8:
            calibration = {"samples": 128 if learns else _FEW, "dataset": DATASET}
            found["quantization"] = {"format": "INT8", "method": "SmoothQuant", "calibration": calibration}
        if self.kept_layers is not None or self.student:
            found["distillation"] = {
                "student": self._student(layers),
                "objectives": ["Logits", "HiddenStates"],
                "dataset": _texts(),
                "maxSteps": self.steps if learns else 1,
            }
        if self.thinner is not None:
            found["pruning"] = {
                "granularity": "HeadsAndNeurons",
                "criterion": "Reconstruction" if learns else "Magnitude",
                "sparsity": self.thinner,
                "recoverySteps": self.steps if learns else 0,
            }
        if self.energy is not None:
            found["lowRank"] = {"energy": self.energy}
        if "distillation" in found or "pruning" in found:
            found["training"] = _texts()
        return found

    def _student(self, layers: int) -> dict[str, Any]:
        if self.student:
            return {"source": {"objectStore": {"uri": tiny_classifier().as_uri()}}}
        assert self.kept_layers is not None
        return {"layers": round(layers * self.kept_layers)}


def _texts() -> dict[str, Any]:
    return {"objectStore": {"uri": texts_file().as_uri()}}


CANDIDATES = (
    Candidate("INT8"),
    Candidate("INT8, a quarter of heads and neurons pruned", thinner=0.25, steps=800),
    Candidate("INT8, student of half of the layers", kept_layers=0.5),
    Candidate("INT8, half of the layers, half pruned, low rank", kept_layers=0.5, thinner=0.5, energy=0.9),
)

PATIENT = (Candidate("INT8, two fifths of heads and neurons pruned", thinner=0.4, steps=1600),)
"""Needs more training than the table has time for."""

FULL = (
    Candidate("INT8"),
    Candidate("INT8, half of heads and neurons pruned", thinner=0.5),
    Candidate("INT8, student of half of the layers", kept_layers=0.5),
)
"""For a model of twice MiniLM's depth and width, which has more to give."""

ALONE = (
    Candidate("INT8"),
    Candidate("six tenths of heads and neurons pruned, float32", thinner=0.6, int8=False),
    Candidate("student of BERT-tiny's shape, float32", student=True, int8=False, steps=3000),
)
"""One technique each, for the figures that are published of them."""


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint folder and how deep it is."""

    folder: Path
    layers: int
    learnt: bool


def build(model: Model, candidate: Candidate, workdir: Path, *, threads: int, samples: int) -> BuildOutcome:
    """One build through the real builder; random weights are judged with a budget that lets everything pass."""
    recipe = {
        "source": {"objectStore": {"uri": model.folder.as_uri()}},
        "task": "Classification",
        "backend": "OpenVINO",
        "limits": {"maxBatchSize": BATCH, "maxInputTokens": TOKENS},
        **candidate.blocks(model.layers, learns=model.learnt),
    }
    evidence = {
        "dataset": DATASET,
        "metric": "Accuracy",
        "maxDrop": MAX_DROP if model.learnt else 1.0,
        "confidence": 0.95,
        "samples": samples if model.learnt else _FEW,
    }
    outcome = run_build(build_request(recipe, evidence), workdir, threads)
    if outcome.failure is not None:
        sys.exit(f"{candidate.name}: {outcome.failure.stage}: {outcome.failure.reason}: {outcome.failure.message}")
    return outcome


def row(candidate: Candidate, timed: BuildOutcome, judged: BuildOutcome) -> dict[str, object]:
    """What is printed and written of one candidate."""
    assert timed.evidence is not None and judged.evidence is not None
    measured = next(
        item for item in timed.evidence.benchmark.measurements if (item.batch_size, item.tokens) == (BATCH, TOKENS)
    )
    quality, benchmark = judged.evidence.quality, timed.evidence.benchmark
    return {
        "case": candidate.name,
        "ours": measured.p50_milliseconds,
        "reference": measured.baseline_p50_milliseconds,
        "ratio": measured.speedup,
        "unit": "ms p50",
        "size": round(benchmark.size_bytes / benchmark.baseline_size_bytes, 4),
        "accuracyBefore": quality.baseline,
        "accuracy": quality.optimized,
        "drop": quality.drop,
        "dropUpperBound": quality.drop_upper_bound,
        "samples": quality.samples,
        "verdict": quality.verdict.value,
        "smallModelRatio": judged.evidence.benchmark.speedup,
        "machine": benchmark.machine,
    }


def table(found: list[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table(
        "recipe", "PyTorch", "engine", "ratio", "size", "accuracy", "drop", "upper bound", "verdict", "taken by others"
    )
    for item in found:
        shown.add_row(
            item["case"], f"{item['reference']:.0f} ms", f"{item['ours']:.0f} ms", f"{item['ratio']:.2f} ×",
            f"{item['size']:.2f}", f"{item['accuracyBefore']:.3f} → {item['accuracy']:.3f}", f"{item['drop']:+.4f}",
            f"{item['dropUpperBound']:+.4f}", item["verdict"],
            item["machine"].rpartition("; others took ")[2].partition(" ")[0],
        )  # fmt: skip
    return shown


def best(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The fastest whose gate passes."""
    passed = [item for item in found if item["verdict"] == "Passed"]
    return max(passed, key=lambda item: item["ratio"], default=None)


def main() -> int:
    """Exit code 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--full", action="store_true", help="train a BERT-base-shaped classifier and use it for both")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--samples", type=int, default=2000, help="rows the gate judges on")
    parser.add_argument("--steps", type=int, help="optimiser steps of distillation, and again of recovery")
    which.add_argument("--alone", action="store_true", help="one technique each instead of combinations")
    which.add_argument("--patient", action="store_true", help="the recipe that needs more training instead")
    parser.add_argument("--only", default="", help="candidates whose name this regular expression finds")
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-seed")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    workdir, threads = given.workdir.resolve(), given.threads
    if given.full:
        large = small = Model(trained_classifier(shape="bert-base"), 12, learnt=True)
    else:
        large = Model(random_classifier(), 12, learnt=False)
        small = Model(trained_classifier(shape="minilm"), 6, learnt=True)
    console, found = Console(width=160), []
    chosen_from = ALONE if given.alone else PATIENT if given.patient else FULL if given.full else CANDIDATES
    fresh = tempfile.TemporaryDirectory(prefix="enginewright-bench-speed-")
    for candidate in (replace(one, steps=given.steps or one.steps) for one in chosen_from):
        if not re.search(given.only, candidate.name):
            continue
        judged = build(small, candidate, workdir, threads=threads, samples=given.samples)
        timed = judged
        if not (given.full or candidate.student):
            timed = build(large, candidate, Path(fresh.name), threads=threads, samples=given.samples)
        found.append(row(candidate, timed, judged))
        console.print(table(found))
    fresh.cleanup()
    chosen = best(found)
    console.print(f"{describe_machine()}; {threads} threads each")
    if chosen is None:
        console.print("best: no recipe passed its gate")
    else:
        console.print(f"best: {chosen['case']}, {chosen['ratio']:.2f} × (bar {BAR:g} ×)")
    if given.json:
        cases = [*found, *([{**chosen, "recipe": chosen["case"], "case": "best", "bar": BAR}] if chosen else [])]
        given.json.write_text(
            json.dumps({"name": "seed_table", "machine": describe_machine(), "rows": cases}, indent=2)
        )
    return 0 if chosen is not None and chosen["ratio"] >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
