"""How often the gate may look at the answers, and what each look costs: fixed before anything is looked at.

Looking again whenever the answer is "cannot tell" gives a bad engine more than one chance to pass. The error that the
user allows is therefore divided between the planned looks (Bonferroni; the simplest of the group-sequential plans, see
Jennison and Turnbull 2000, chapter 2, and for unequal shares Lan and DeMets 1983). The chance that the bound of *any*
look lies below the true drop is at most the allowed error, whatever made the sequence stop, for every confidence at
once: so stored bounds may be judged by another budget or confidence later.

Half of the error belongs to the first look, because most engines are decided there.
"""

from __future__ import annotations

from dataclasses import dataclass

from enginewright_api.evidence import QualityEvidence, Verdict
from enginewright_builder.gate.bounds import CONFIDENCES

GROWTH = 4
MOST_LOOKS = 3
_WORTH_A_LOOK = 1.25
"""A look at fewer than a quarter more rows would cost error and tell nothing."""


@dataclass(frozen=True, slots=True)
class Look:
    """Rows of one look (the first of the draw), and its share of the error."""

    samples: int
    share: float = 1.0

    @property
    def levels(self) -> tuple[float, ...]:
        """Confidence at which to bound for each of CONFIDENCES to hold over all looks."""
        return tuple(1 - (1 - confidence) * self.share for confidence in CONFIDENCES)


def planned(samples: int, available: int) -> tuple[Look, ...]:
    """Looks at `samples` rows, then at four and sixteen times as many, as far as there are rows."""
    counts = [min(samples, available)]
    while len(counts) < MOST_LOOKS and available >= _WORTH_A_LOOK * counts[-1]:
        more = min(counts[-1] * GROWTH, available)
        counts.append(available if available < _WORTH_A_LOOK * more else more)
    if len(counts) == 1:
        return (Look(counts[0]),)
    later = 0.5 / (len(counts) - 1)
    return (Look(counts[0], 0.5), *(Look(count, later) for count in counts[1:]))


def most_rows(samples: int) -> int:
    """Of the last look that is ever planned."""
    return int(samples * GROWTH ** (MOST_LOOKS - 1))


def settled(evidence: QualityEvidence) -> bool:
    """Whether more rows are not worth drawing: it passed, or even the lower bound is above the budget.

    The lower bound is the upper one mirrored: it decides about effort only, never about passing.
    """
    lower = 2 * evidence.drop - evidence.drop_upper_bound
    return evidence.verdict is Verdict.PASSED or lower > evidence.max_drop
