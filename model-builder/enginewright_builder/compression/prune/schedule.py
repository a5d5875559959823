"""How sparsity grows over the pruning steps, and how recovery is shared among them."""

from __future__ import annotations

from dataclasses import dataclass

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Pruning, PruningGranularity, ScheduleType


@dataclass(frozen=True, slots=True)
class PruningStep:
    """Prune to this sparsity, then train this many steps."""

    sparsity: float
    recovery_steps: int


def plan(pruning: Pruning) -> list[PruningStep]:
    """The steps in order; recovery is shared evenly, the last takes what is left over.

    Raises DeterministicError InvalidRecipe for a schedule without effect.
    """
    schedule = pruning.schedule
    if schedule.type is ScheduleType.ONE_SHOT and schedule.steps != 1:
        raise DeterministicError(
            "InvalidRecipe",
            f"optimization.pruning.schedule.steps: OneShot is one step, not {schedule.steps}; use type Cubic",
        )
    if schedule.type is ScheduleType.CUBIC and pruning.granularity is PruningGranularity.TWO_OF_FOUR:
        raise DeterministicError(
            "InvalidRecipe",
            "optimization.pruning.schedule.type: TwoOfFour is half of the weights from the start; use OneShot",
        )
    count = schedule.steps
    share = pruning.recovery_steps // count
    recovery = [share] * (count - 1) + [pruning.recovery_steps - share * (count - 1)]
    return [
        PruningStep(cubic(pruning.sparsity, number, count), steps) for number, steps in enumerate(recovery, start=1)
    ]


def cubic(final: float, step: int, steps: int) -> float:
    """Sparsity after `step` of `steps`: s_f + (s_i - s_f)(1 - t/n)³ with s_i = 0 (Zhu and Gupta 2017, equation 1)."""
    return final - final * (1.0 - step / steps) ** 3
