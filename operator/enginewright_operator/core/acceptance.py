"""Is the spec valid, is all it asks for available, and is every accelerator class that it lists there?"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.validation import problems

from .availability import Unavailable, unavailable_fields
from .conditions import TRUE, is_false, is_true
from .draft import Draft

ACCEPTED = "Accepted"


def acceptance(draft: Draft) -> Draft:
    """Sets Accepted, and the parsed spec. Whether a class can run the recipe is asked next, class by class."""
    spec = draft.snapshot.spec()
    if isinstance(spec, str):
        return draft.found(ACCEPTED, is_false("InvalidSpec", spec))
    draft = replace(draft, spec=spec)
    missing = [*unavailable_fields(spec), *_without_gateway(draft, spec)]
    if missing:
        return draft.found(ACCEPTED, is_false("FeatureNotAvailable", sentence_for(missing)))
    if broken := _broken_rules(draft):
        return draft.found(ACCEPTED, is_false("InvalidSpec", broken))
    for name in spec.hardware.accelerator_classes:
        if name not in draft.snapshot.classes:
            there = ", ".join(sorted(draft.snapshot.classes)) or "none"
            message = f"hardware.acceleratorClasses: there is no AcceleratorClass {name}; there is {there}"
            return draft.found(ACCEPTED, is_false("AcceleratorClassNotFound", message))
    return draft.found(ACCEPTED, is_true("Valid"))


def _broken_rules(draft: Draft) -> str:
    """Rules across fields, which the API server checks when an object is written: it may have been so before they were.

    Not again for a spec that was accepted, nor for one that was just asked about: that would cost every visit.
    """
    snapshot = draft.snapshot
    if any(
        item.type == ACCEPTED and item.status is TRUE and item.observed_generation == snapshot.generation
        for item in snapshot.status().conditions
    ):
        return ""
    stated = {key: snapshot.manifest[key] for key in ("apiVersion", "kind", "spec") if key in snapshot.manifest}
    return _problems(json.dumps({**stated, "metadata": {"name": snapshot.name}}))


@lru_cache(maxsize=256)
def _problems(manifest: str) -> str:
    """Of a model as JSON. Its status waits while it is new, so its first visits ask the same."""
    return "; ".join(problems(json.loads(manifest)))


def _without_gateway(draft: Draft, spec: OptimizedModelSpec) -> list[Unavailable]:
    if spec.rollout.canary is None or draft.snapshot.settings.gateways:
        return []
    return [("rollout.canary", "the gateway gives a canary its share, and this operator knows of none (--gateway)")]


def sentence_for(missing: list[tuple[str, str]]) -> str:
    """`field: why; field: why`."""
    return "; ".join(f"{field}: {why}" for field, why in missing)
