"""Lottery tickets (Frankle and Carbin 2019): train, prune by the trained magnitudes, rewind, train what is left.

The initial weights are those of the given checkpoint, as Chen et al. 2020 do for pre-trained BERT. Each round trains
`recoverySteps` steps from them, and so does the ticket at the end.
"""

from __future__ import annotations

from typing import Any

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import PruningCriterion
from enginewright_builder.compression.anatomy import layers_of
from enginewright_builder.compression.prune.importance import weight_scores
from enginewright_builder.compression.prune.masks import Masks, sparsity_of, weights_masks
from enginewright_builder.compression.prune.recovery import enforced
from enginewright_builder.compression.prune.run import PruningRun
from enginewright_builder.compression.prune.sparse import apply_masks, below
from enginewright_builder.compression.training import Tell

_FIELD = "optimization.pruning.criterion"


def draw_ticket(run: PruningRun) -> dict[str, Any]:
    """Find the mask, rewind, retrain. Result: sparsity, and the last training as recovery.

    Raises DeterministicError InvalidRecipe without recovery steps: untrained magnitudes draw no ticket.
    """
    layers_of(run.model, field=_FIELD)
    if run.recovery is None:
        raise DeterministicError(
            "InvalidRecipe",
            "optimization.pruning.recoverySteps: criterion LotteryTicket trains in every round; give some steps,"
            " or use criterion Magnitude",
        )
    masks = find_ticket(run)
    recovery = _train(run, masks, run.told(len(run.steps), len(run.steps) + 1))
    return {"sparsity": sparsity_of(masks), "recovery": [recovery]}


def find_ticket(run: PruningRun) -> Masks:
    """The mask; the model is left rewound to its initial weights, masked."""
    initial = {name: tensor.detach().clone() for name, tensor in run.model.state_dict().items()}
    masks: Masks = {}
    for number, step in enumerate(run.steps):
        tell = run.told(number, len(run.steps) + 1)
        _train(run, masks, tell)
        scores = below(weight_scores(run.model, PruningCriterion.MAGNITUDE, run.probe), masks)
        masks = weights_masks(scores, step.sparsity)
        run.model.load_state_dict(initial)
        apply_masks(run.model, masks)
        tell(1.0, f"round {number + 1}: ticket of sparsity {sparsity_of(masks):.3f}")
    return masks


def _train(run: PruningRun, masks: Masks, tell: Tell) -> dict[str, Any]:
    # With dropout: a whole model that imitates itself without noise has nothing to learn.
    run.model.train()
    try:
        with enforced(run.model, masks):
            return run.recover(run.settings.recovery_steps, tell)
    finally:
        run.model.eval()
