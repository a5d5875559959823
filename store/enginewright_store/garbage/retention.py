"""Which holdings of a store stay and which may go. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from enginewright_store.garbage.inventory import Holding, HoldingKind

REFERENCE_DIGITS = 16
"""Objects name builds by this many digits of the key at least (`eb-<16 hex>`); more of them count as these."""


class Verdict(StrEnum):
    """What comes of a holding."""

    KEEP = "Keep"
    WAIT = "Wait"
    """Unused, and removed once it has been for the grace time."""
    REMOVE = "Remove"


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept although nothing uses it."""

    artifacts: int = 3
    """Newest artifacts of each model (same weights, same task), those in use among them."""
    grace: timedelta = timedelta(days=1)
    """What nothing uses goes this long after a collection first found it so, or after it was written."""
    stages: timedelta = timedelta(days=14)
    """Results of the stage cache are kept this long after they were written."""
    stage_bytes: int | None = None
    """If set, the oldest results of the stage cache go earlier until the rest fits."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A holding and what comes of it, with the reason in words."""

    holding: Holding
    verdict: Verdict
    reason: str
    unused_since: datetime | None = None


def references(holding: Holding, used: AbstractSet[str]) -> bool:
    """Whether an object of a cluster names this build."""
    return holding.kind is not HoldingKind.STAGE and holding.key[:REFERENCE_DIGITS] in used


def decide(
    holdings: Sequence[Holding],
    used: AbstractSet[str],
    unused_since: Mapping[str, datetime],
    retention: Retention,
    now: datetime,
) -> Sequence[Decision]:
    """A decision for each holding, in their order.

    `used` are the first 16 digits of all keys that objects name; `unused_since` says of keys when a collection first
    found them unused.
    """
    situation = _Situation(
        used, unused_since, retention, now, _newest(holdings, retention.artifacts), _over_size(holdings, retention)
    )
    return [situation.decide(holding) for holding in holdings]


@dataclass(frozen=True, slots=True)
class _Situation:
    used: AbstractSet[str]
    unused_since: Mapping[str, datetime]
    retention: Retention
    now: datetime
    newest: AbstractSet[str]
    over_size: AbstractSet[str]

    def decide(self, holding: Holding) -> Decision:
        if holding.kind is HoldingKind.STAGE:
            return self._stage(holding)
        kept = self._kept_because(holding)
        if kept:
            return Decision(holding, Verdict.KEEP, kept)
        if holding.kind is HoldingKind.REMOVAL:
            return Decision(holding, Verdict.REMOVE, "its removal was cut off")
        since = max(self.unused_since.get(holding.key, self.now), holding.modified)
        reason = "no object uses it" if holding.kind is HoldingKind.ARTIFACT else "files without a manifest"
        if self.now - since < self.retention.grace:
            until = (since + self.retention.grace).isoformat(timespec="minutes")
            return Decision(holding, Verdict.WAIT, f"{reason}; goes after {until}", since)
        return Decision(holding, Verdict.REMOVE, reason, since)

    def _kept_because(self, holding: Holding) -> str:
        if references(holding, self.used):
            return "in use"
        if holding.kind is HoldingKind.UNREADABLE:
            return "its manifest cannot be read by this version"
        if holding.key in self.newest:
            return f"among the newest {self.retention.artifacts} of its model"
        return ""

    def _stage(self, holding: Holding) -> Decision:
        age = self.now - holding.modified
        if age < self.retention.grace:  # a build may be reading it
            return Decision(holding, Verdict.KEEP, "new")
        if age >= self.retention.stages:
            return Decision(holding, Verdict.REMOVE, f"older than {self.retention.stages.days} days")
        if holding.key in self.over_size:
            return Decision(holding, Verdict.REMOVE, "the stage cache is larger than it may be")
        return Decision(holding, Verdict.KEEP, "stage cache")


def _newest(holdings: Sequence[Holding], number: int) -> AbstractSet[str]:
    """Keys of the newest artifacts of each model."""
    by_model: defaultdict[str, list[Holding]] = defaultdict(list)
    for holding in holdings:
        if holding.kind is HoldingKind.ARTIFACT:
            by_model[holding.model].append(holding)
    kept: set[str] = set()
    for group in by_model.values():
        group.sort(key=lambda holding: (holding.modified, holding.key), reverse=True)
        kept.update(holding.key for holding in group[:number])
    return kept


def _over_size(holdings: Sequence[Holding], retention: Retention) -> AbstractSet[str]:
    """Keys of the oldest stage results beyond the size that they may have together."""
    if retention.stage_bytes is None:
        return frozenset()
    stages = [holding for holding in holdings if holding.kind is HoldingKind.STAGE]
    stages.sort(key=lambda holding: (holding.modified, holding.key), reverse=True)
    total, over = 0, set()
    for holding in stages:
        total += holding.size_bytes
        if total > retention.stage_bytes:
            over.add(holding.key)
    return over
