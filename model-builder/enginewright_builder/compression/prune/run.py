"""What every kind of pruning works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers

from enginewright_api.optimization import Pruning
from enginewright_builder.compression.prune.importance import Probe
from enginewright_builder.compression.prune.recovery import Recovery
from enginewright_builder.compression.prune.schedule import PruningStep
from enginewright_builder.compression.training import Tell


@dataclass(frozen=True, slots=True)
class PruningRun:
    """One model being pruned in place."""

    model: transformers.PreTrainedModel
    settings: Pruning
    steps: tuple[PruningStep, ...]
    probe: Probe
    recovery: Recovery | None
    """None without recovery steps."""
    tell: Tell

    def told(self, part: int, parts: int) -> Tell:
        """Tells the progress of one of several parts as progress of the whole."""
        return lambda fraction, message: self.tell((part + fraction) / parts, message)

    def recover(self, steps: int, tell: Tell) -> dict[str, Any]:
        """Train so many steps; an entry of the result's `recovery`. Only with a recovery."""
        assert self.recovery is not None  # noqa: S101 - callers look
        losses = self.recovery.run(self.model, steps, tell)
        return {"steps": steps, "firstLoss": losses[0], "lastLoss": losses[-1]}
