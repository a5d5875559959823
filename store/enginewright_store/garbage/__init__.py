"""Garbage collection of a store: `.inventory` reads what is there, `.retention` decides, `.sweep` removes.

Safe beside builders, operators and other collections: see `.sweep`.
"""

from enginewright_store.garbage.inventory import Holding, HoldingKind, inventory
from enginewright_store.garbage.retention import Decision, Retention, Verdict, decide
from enginewright_store.garbage.sweep import Collection, collect

__all__ = [
    "Collection", "Decision", "Holding", "HoldingKind", "Retention", "Verdict", "collect", "decide", "inventory",
]  # fmt: skip
