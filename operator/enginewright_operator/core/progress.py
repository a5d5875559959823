"""Stages as a running builder tells them: one JSON line a stage on its stdout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from enginewright_api.geometry import CheckpointSizes
from enginewright_api.outcome import StageLine, StageReport


def stages_in(log: str) -> list[StageReport]:
    """Last report of each stage, in the order in which the stages began."""
    stages = {line.name: line.report() for line in _lines(log)}
    return list(stages.values())[:32]


@dataclass(frozen=True, slots=True)
class ToldSizes:
    """Of the checkpoints that a build fetches; None where not told."""

    checkpoint: CheckpointSizes | None = None
    draft: CheckpointSizes | None = None

    def completed(self, other: ToldSizes) -> ToldSizes:
        """With what another one has told and this one has not."""
        return ToldSizes(self.checkpoint or other.checkpoint, self.draft or other.draft)


def sizes_in(log: str) -> ToldSizes:
    """What the builder has told of its checkpoints."""
    found = ToldSizes()
    for line in _lines(log):
        found = found.completed(ToldSizes(line.checkpoint, line.draft_checkpoint))
    return found


def _lines(log: str) -> Iterator[StageLine]:
    """Other lines are the builder's own."""
    for line in log.splitlines():
        if not line.startswith("{"):
            continue
        try:
            yield StageLine.model_validate_json(line)
        except ValidationError:
            continue
