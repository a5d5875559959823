"""Stages as a running builder tells them: one JSON line a stage on its stdout."""

from __future__ import annotations

from pydantic import ValidationError

from enginewright_api.outcome import StageReport


def stages_in(log: str) -> list[StageReport]:
    """Last report of each stage, in the order in which the stages began; other lines are the builder's own."""
    stages: dict[str, StageReport] = {}
    for line in log.splitlines():
        if not line.startswith("{"):
            continue
        try:
            report = StageReport.model_validate_json(line)
        except ValidationError:
            continue
        # Shares of a stage change all the time and would make every visit a write.
        stages[report.name] = report.model_copy(update={"fraction": None})
    return list(stages.values())[:32]
