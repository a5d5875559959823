"""The one training loop: distillation, recovery after pruning, quantisation-aware training, early-exit heads.

AdamW (Loshchilov and Hutter 2019), linear warm-up and decay, gradients clipped by their norm. Everything follows from
the arguments: no clock, no global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic as fills

from enginewright_api.errors import DeterministicError
from enginewright_builder.compression.batches import Batch, batches
from enginewright_builder.compression.imitation import imitation_loss

__all__ = ["Batch", "Tell", "batches", "imitation_loss", "quiet", "rate_for", "reproducible", "train"]

Tell = Callable[[float, str], None]
"""Fraction done (0..1) and what to show."""

_WARM_UP = 0.1
"""Share of the steps over which the learning rate rises."""
_MAX_NORM = 1.0
_TOLD_TIMES = 50
_RATE_WIDTH = 384


def train(
    parameters: Iterable[torch.nn.Parameter],
    step: Callable[[Batch], torch.Tensor],
    batches: Iterator[Batch],  # noqa: A002, RUF100 - the function of this name makes them
    *,
    steps: int,
    learning_rate: float,
    tell: Tell,
    after_step: Callable[[int], None] | None = None,
    weight_decay: float = 0.0,
) -> list[float]:
    """`steps` optimiser steps on the scalar loss that `step` gives for a batch; the loss of every step.

    `learning_rate` is the peak, reached after a tenth of the steps; it falls to 0 linearly. `after_step` runs after
    each update with the number of updates done (1..steps): masks are applied again there, schedules go on there.

    Raises DeterministicError TrainingDiverged when a loss is not finite.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=learning_rate, weight_decay=weight_decay, fused=True)
    warm_up = max(1, math.ceil(steps * _WARM_UP))

    def factor(done: int) -> float:
        return min((done + 1) / warm_up, (steps - done) / max(1, steps - warm_up + 1))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses: list[float] = []
    for number in range(1, steps + 1):
        loss = step(next(batches))
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise DeterministicError(
                "TrainingDiverged", f"the loss of training step {number} is {losses[-1]}; the model cannot learn so"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, _MAX_NORM)
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step(number)
        if number % max(1, steps // _TOLD_TIMES) == 0 or number == steps:
            tell(number / steps, f"step {number} of {steps}, loss {losses[-1]:.4g}")
    return losses


def rate_for(width: int, *, rate: float) -> float:
    """The learning rate of a model of this hidden width, from one that is right at 384.

    Wider models learn at a rate that is smaller in proportion (Yang 2022, muP).
    """
    return rate * min(1.0, _RATE_WIDTH / width)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Inside, torch's own random numbers follow from `seed` and only deterministic kernels run."""
    before = torch.are_deterministic_algorithms_enabled(), fills.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        fills.fill_uninitialized_memory = False  # every kernel writes what it allocates; filling first costs a sixth
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            fills.fill_uninitialized_memory = before[1]


def quiet(fraction: float, message: str) -> None:
    """A `Tell` that tells nobody."""
