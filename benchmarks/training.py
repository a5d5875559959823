"""What a step of distillation takes in mixed precision and in float32: MiniLM's whole shape as student and as teacher.

    python -m benchmarks.training [--rounds N] [--json FILE]

Both learn in turn on the same batches of 16 reviews, ten steps of one, ten steps of the other; means of the steps. On a
processor that does not gain from bf16 both are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.models.classifier import minilm
from enginewright_api.optimization import DistillationObjective as Objective
from enginewright_api.recipe import Task
from enginewright_builder.compression.batches import Batch, batches, singles
from enginewright_builder.compression.imitation import answer, imitation_loss
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import quiet, reproducible, train
from enginewright_builder.datasets import reviews
from enginewright_builder.machine import Disturbance, describe_machine

OBJECTIVES = (Objective.LOGITS, Objective.HIDDEN_STATES)
_ROUND = 10


class Learner:
    """A student and its teacher, one of the two precisions."""

    def __init__(self, *, mixed: bool) -> None:
        self._mixed = mixed
        self._teacher = load_model(minilm(), Task.EMBEDDING).requires_grad_(False)
        self._student = load_model(minilm(), Task.EMBEDDING).train()
        self.seconds = 0.0
        self.losses: list[float] = []

    def learn(self, texts: list[Batch]) -> None:
        """One step a batch, as the builder's loop takes them."""
        begun = time.perf_counter()
        self.losses += train(
            self._student.parameters(), self._loss, iter(texts), steps=len(texts), learning_rate=1e-5, tell=quiet
        )
        self.seconds += time.perf_counter() - begun

    def _loss(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            wanted = answer(self._teacher, batch, OBJECTIVES, mixed=self._mixed)
        own = answer(self._student, batch, OBJECTIVES, mixed=self._mixed)
        return imitation_loss(own, wanted, Task.EMBEDDING, batch, OBJECTIVES, temperature=4.0, alpha=0.7)


def main() -> None:
    """Print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="of ten steps of each")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    drawn = batches(singles(reviews.calibration_rows()), minilm(), max_tokens=128, batch_size=16, seed=0)
    mixed, plain = Learner(mixed=True), Learner(mixed=False)
    with reproducible(0):
        for number in range(given.rounds + 1):
            texts = list(islice(drawn, _ROUND))
            for each in (mixed, plain):
                each.learn(texts)
            if number == 0:  # the first steps allocate
                mixed.seconds = plain.seconds = 0.0
                disturbance = Disturbance([os.getpid()])
    others = disturbance.share()
    ours, reference = (1e3 * each.seconds / (given.rounds * _ROUND) for each in (mixed, plain))
    Console().print(
        f"mixed {ours:.0f} ms, float32 {reference:.0f} ms a step: {reference / ours:.2f} ×; losses of the last ten"
        f" {sum(mixed.losses[-_ROUND:]) / _ROUND:.4f} and {sum(plain.losses[-_ROUND:]) / _ROUND:.4f}"
        f"\n{describe_machine()}; others took {others:.0%}"
    )
    if given.json:
        row = {
            "case": "distillation step",
            "ours": ours,
            "reference": reference,
            "ratio": reference / ours,
            "unit": "ms",
        }
        given.json.write_text(json.dumps({"name": "training", "machine": describe_machine(), "rows": [row]}, indent=2))


if __name__ == "__main__":
    main()
