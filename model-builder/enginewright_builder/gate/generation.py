"""Text generation against its baseline: perplexity of real text, and agreement of greedily chosen tokens.

Both are teacher-forced: every token is predicted from the row's own text, never from what an engine said before, so one
early difference does not make all that follows differ, and rows stay comparable in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_api.operation_spec import Metric
from enginewright_builder.gate.bounds import mean_bounds
from enginewright_builder.gate.measured import Measured
from enginewright_builder.gate.perplexity import perplexity, perplexity_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Answers = NDArray[np.floating[Any]]

NLL, TOKENS, FIRST_CHOICE = 0, 1, 2
"""Columns of answers: mean negative log-likelihood a token in nats, tokens predicted, then chosen next tokens."""

MAX_NLL_ERROR = 1e-3
"""Nats a token by which an unquantised engine may differ from eager on a row: 0.1 % of perplexity."""


def measure_generation(metric: Metric, engine: Answers, baseline: Answers, levels: Sequence[float]) -> Measured:
    """A metric of both. Answers are rows as `GenerationClient.ask_all` gives them.

    Perplexity: the drop is the relative rise. TokenAgreement: the share of places where both choose the same next
    token, rows weighing alike; the baseline agrees with itself, so its value is 1.
    """
    if metric is Metric.TOKEN_AGREEMENT:
        agreed = agreement(engine, baseline)
        drops = 1.0 - agreed
        return Measured(1.0, float(agreed.mean()), float(drops.mean()), mean_bounds(drops, levels), float(agreed.min()))
    if metric is Metric.PERPLEXITY:
        engine, baseline = engine.astype(np.float64), baseline.astype(np.float64)
        tokens = baseline[:, TOKENS]
        bounds = perplexity_bounds(engine[:, NLL], baseline[:, NLL], tokens, levels)
        before, after = _perplexities(engine, baseline)
        return Measured(before, after, after / before - 1, bounds)
    raise DeterministicError("FeatureNotAvailable", f"quality.metric: {metric.value} cannot be measured on generation")


def agreement(engine: Answers, baseline: Answers) -> NDArray[np.float64]:
    """Share of a row's places where both choose the same token."""
    same = engine[:, FIRST_CHOICE:] == baseline[:, FIRST_CHOICE:]
    return np.asarray(same.mean(axis=1), np.float64)


def check_same_likelihood(engine: Answers, baseline: Answers) -> float:
    """Largest difference of a row, nats a token. Raises DeterministicError NumericalMismatch above MAX_NLL_ERROR."""
    error = float(np.abs(engine[:, NLL] - baseline[:, NLL]).max())
    if error > MAX_NLL_ERROR:
        raise DeterministicError(
            "NumericalMismatch",
            f"the unquantised engine's likelihoods differ from eager PyTorch's by {error:.2g} nats a token, more than"
            f" {MAX_NLL_ERROR:g}; choose another engine.backend",
        )
    return error


def summary(engine: Answers, baseline: Answers) -> str:
    """Both measures in a sentence, whichever is judged."""
    before, after = _perplexities(engine, baseline)
    return (
        f"perplexity {after:.3f} (baseline {before:.3f}),"
        f" {agreement(engine, baseline).mean():.1%} of next tokens as the baseline's"
    )


def _perplexities(engine: Answers, baseline: Answers) -> tuple[float, float]:
    """Of the baseline and of the engine."""
    tokens = baseline[:, TOKENS].astype(np.float64)
    return (
        perplexity(baseline[:, NLL].astype(np.float64), tokens),
        perplexity(engine[:, NLL].astype(np.float64), tokens),
    )
