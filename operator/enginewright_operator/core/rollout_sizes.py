"""How many replicas each engine of a model has on the way from one to the next. Pure arithmetic on what is ready now.

Whatever is called again with the same engines answers the same; the way goes on only when pods have moved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .engines import Running, Selection


@dataclass(frozen=True, slots=True)
class Sizes:
    """Replicas that the Deployments are to have now, and what the Service is to select."""

    target: int
    old: int
    selection: Selection


def next_sizes(
    wanted: int, surge: int, *, target: Running | None, serving: list[Running], selected: Selection, label: str
) -> Sizes:
    """Next step from the engines that serve to the target.

    With room for all replicas (surge ≥ wanted) the Service switches at once, when every new replica is ready. With less
    room it selects both engines as soon as the first new replicas are ready, and replicas move over step by step. With
    none (surge 0) each old replica goes before its successor comes, so one replica is missing on the way.
    """
    ready = target.ready if target is not None else 0
    if not serving:
        return Sizes(wanted, 0, Selection(True, label))
    if ready >= wanted:
        return Sizes(wanted, _wanted(serving), Selection(True, label))
    mixing = selected.exists and selected.label is None
    missing = 1 if surge == 0 else 0
    old = max(0, wanted - missing - (ready if mixing else 0))
    room = wanted + surge - _occupied(serving)
    size = min(wanted, max(room, target.wanted if target is not None else 0, 0))
    mix = mixing or (surge < wanted and ready >= max(1, min(surge, wanted)))
    return Sizes(size, old, Selection(True, None) if mix else selected)


def canary_replicas(wanted: int, weight: int) -> int:
    """Replicas that carry `weight` per cent of what `wanted` replicas carry; at least one."""
    return min(wanted, max(1, math.ceil(wanted * weight / 100)))


def canary_weight(wanted: int, weight: int, ready: int) -> int:
    """Per cent of the requests that `ready` replicas can take, at most `weight`."""
    return weight if ready >= canary_replicas(wanted, weight) else min(weight, 100 * ready // wanted)


def canary_sizes(
    wanted: int, surge: int, weight: int, *, target: Running | None, serving: list[Running], receiving: bool
) -> tuple[int, int]:
    """Replicas of the canary and of the stable engine while the former gets `weight` per cent; `surge` is at least 1.

    The stable engine keeps all replicas as long as surge has room for the canary. Beyond that it gives up one for each
    replica of the canary that is ready and `receiving` requests.
    """
    needed = canary_replicas(wanted, weight)
    ready = target.ready if target is not None and receiving else 0
    old = min(wanted, max(wanted + surge - needed, wanted - ready))
    room = wanted + surge - _occupied(serving)
    size = min(needed, max(room, target.wanted if target is not None else 0, 0))
    return size, old


def _wanted(engines: list[Running]) -> int:
    return sum(engine.wanted for engine in engines)


def _occupied(engines: list[Running]) -> int:
    """Replicas that are there or are about to be."""
    return sum(max(engine.wanted, engine.existing) for engine in engines)
