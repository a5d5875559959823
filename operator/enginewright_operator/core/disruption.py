"""Keeps a drain of nodes from taking several replicas of an engine at once."""

from __future__ import annotations

from .draft import Draft
from .drift import drifted, stamped
from .effects import Apply, Effect
from .engines import running_engines
from .render.budgets import disruption_budget


def disruption(draft: Draft) -> Draft:
    """Applies a budget for each engine of more than one replica.

    It stays when there is but one again, where it allows everything.
    """
    snapshot = draft.snapshot
    present = {item["metadata"]["name"]: item for item in snapshot.budgets}
    effects: list[Effect] = []
    for engine in running_engines(snapshot).values():
        if engine.wanted < 2:
            continue
        wanted = stamped(disruption_budget(snapshot, engine.manifest))
        if drifted(present.get(engine.name), wanted):
            effects.append(Apply(wanted))
    return draft.doing(*effects)
