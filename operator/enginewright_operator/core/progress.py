"""Stages as a running builder tells them: one JSON line a stage on its stdout."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from enginewright_api.geometry import CheckpointSizes
from enginewright_api.outcome import StageLine, StageReport


def stages_in(log: str) -> list[StageReport]:
    """Last report of each stage, in the order in which the stages began."""
    stages = {line.name: line.report() for line in _lines(log)}
    return list(stages.values())[:32]


def sizes_in(log: str) -> CheckpointSizes | None:
    """What the builder has told of the checkpoint."""
    return next((line.checkpoint for line in _lines(log) if line.checkpoint is not None), None)


def _lines(log: str) -> Iterator[StageLine]:
    """Other lines are the builder's own."""
    for line in log.splitlines():
        if not line.startswith("{"):
            continue
        try:
            yield StageLine.model_validate_json(line)
        except ValidationError:
            continue
