"""Early exit: inputs that a small head is sure of after some layers do not run through the others."""

from __future__ import annotations

import numpy as np

from enginewright_api.engine_description import HIDDEN_STATES
from enginewright_serving.triton.padding import padded
from enginewright_serving.triton.runner import Runner, Tensors, Vectors


class ExitingRunner:
    """Three engines in a row: first layers, head, and the rest for the rows that the head is not sure of.

    A row leaves when the largest softmax probability of the head's scores is at least the threshold, which was chosen
    when the engine was built. Rows keep their places whatever leaves.
    """

    def __init__(self, first: Runner, head: Runner, rest: Runner, threshold: float) -> None:
        self._first = first
        self._head = head
        self._rest = rest
        self._threshold = threshold
        self.rows = 0
        self.exits = 0

    def run(self, tensors: Tensors) -> Vectors:
        mask = tensors["attention_mask"]
        states = self._first.run(tensors)
        scores: Vectors = np.array(self._head.run({HIDDEN_STATES: states, "attention_mask": mask}), np.float32)
        unsure = np.flatnonzero(confidence(scores) < self._threshold)
        self.rows += len(scores)
        self.exits += len(scores) - len(unsure)
        if unsure.size:
            # What the longest of them does not need was padding for rows that left.
            width = min(padded(int(mask[unsure].sum(axis=1).max())), mask.shape[1])
            going_on = {
                HIDDEN_STATES: np.ascontiguousarray(states[unsure, :width]),
                "attention_mask": np.ascontiguousarray(mask[unsure, :width]),
            }
            scores[unsure] = self._rest.run(going_on)
        return scores


def confidence(scores: Vectors) -> Vectors:
    """Largest softmax probability of each row [batch, labels]."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    largest: Vectors = 1.0 / np.exp(shifted).sum(axis=1)
    return largest
