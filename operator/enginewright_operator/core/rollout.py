"""Brings the target engine up beside the active one, moves the requests over, then takes the old one away.

With room for all replicas (maxSurge ≥ replicas) the Service switches at once, when every new replica is ready. With
less room it selects both engines as soon as the first new replicas are ready, and replicas move over step by step.
Either way as many replicas as wanted are ready at every moment, provided that they were before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from enginewright_api.optimized_model import OptimizedModelSpec

from .conditions import is_false, seconds_since
from .draft import Draft, Target
from .drift import covers, drifted, stamped
from .effects import Apply, Delete, Effect, Object, Patch, Reference, RequeueAfter
from .engines import Running, Selection, running_engines, selection
from .render.services import SWITCHED_AT
from .render.serving import Engine, batching_config_map, deployment
from .rollout_progress import ROLLED_OUT, progress


@dataclass(frozen=True, slots=True)
class Sizes:
    """Replicas that the Deployments are to have now, and what the Service is to select."""

    target: int
    old: int
    selection: Selection


def rollout(draft: Draft) -> Draft:
    """Sets RolledOut and decides on Deployments and the Service's selector."""
    engines, selected = running_engines(draft.snapshot), selection(draft.snapshot)
    draft = replace(draft, selection=selected)
    spec, target = draft.spec, draft.target
    if spec is None:
        return draft
    if target is None or draft.accelerator_class is None:
        return _keep_size(draft, engines, selected, spec.replicas)
    label = _label(target)
    olds = [engine for engine in engines.values() if engine.label != label]
    present = engines.get(label)
    if spec.rollout.paused and (olds or present is None):
        draft = _keep_size(draft, engines, selected, spec.replicas)
        return draft.found(ROLLED_OUT, is_false("Paused", "rollout.paused: set it to false to go on"))
    serving = [engine for engine in olds if selected.covers(engine.label)]
    sizes = next_sizes(
        spec.replicas, spec.rollout.max_surge, target=present, serving=serving, selected=selected, label=label
    )
    steps = [*_bring_up(draft, spec, target, present, sizes.target), *_shrink(serving, sizes.old)]
    steps += _take_away(draft, olds, selected, label)
    draft = replace(draft, selection=sizes.selection).doing(*steps)
    same_pods = not any(_changes_pods(step, present) for step in steps)
    return progress(draft, target, present, at_rest=selected.label == label and not olds and same_pods)


def next_sizes(
    wanted: int, surge: int, *, target: Running | None, serving: list[Running], selected: Selection, label: str
) -> Sizes:
    """Next step of the way from the engines that serve to the target; the same answer until something moved."""
    ready = target.ready if target is not None else 0
    if not serving:
        return Sizes(wanted, 0, Selection(True, label))
    if ready >= wanted:
        return Sizes(wanted, sum(engine.wanted for engine in serving), Selection(True, label))
    mixing = selected.exists and selected.label is None
    old = max(0, wanted - (ready if mixing else 0))
    occupied = sum(max(engine.wanted, engine.existing) for engine in serving)
    room = wanted + surge - occupied
    size = min(wanted, max(room, target.wanted if target is not None else 0, 0))
    mix = mixing or (surge < wanted and ready >= min(surge, wanted))
    return Sizes(size, old, Selection(True, None) if mix else selected)


def _label(target: Target) -> str:
    return target.artifact.digest.removeprefix("sha256:")[:32]


def _bring_up(
    draft: Draft, spec: OptimizedModelSpec, target: Target, present: Running | None, size: int
) -> list[Effect]:
    """Applies what the target's pods need, where it is not there yet or reads otherwise."""
    assert draft.accelerator_class is not None  # noqa: S101 - checked by the caller
    snapshot = draft.snapshot
    engine = Engine(target.artifact, target.rung.key, target.rung.build_name)
    config_maps = {item["metadata"]["name"]: item for item in snapshot.config_maps}
    batching = stamped(batching_config_map(snapshot, spec))
    effects: list[Effect] = []
    if drifted(config_maps.get(batching["metadata"]["name"]), batching):
        effects.append(Apply(batching))
    wanted = deployment(snapshot, spec, engine, draft.accelerator_class, replicas=size)
    if drifted(present.manifest if present is not None else None, stamped(wanted)):
        effects.append(Apply(stamped(wanted)))
    return effects


def _changes_pods(step: Effect, present: Running | None) -> bool:
    """Whether a step gives the target other pods, as opposed to more or fewer of the same."""
    if not isinstance(step, Apply) or step.manifest["kind"] != "Deployment":
        return False
    return present is None or not covers(present.manifest["spec"]["template"], step.manifest["spec"]["template"])


def _shrink(serving: list[Running], size: int) -> list[Effect]:
    """Gives the old engines `size` replicas together, the one with most ready replicas first."""
    effects: list[Effect] = []
    ordered = sorted(serving, key=lambda item: (-item.ready, item.name))
    for engine in ordered:
        share = size if engine is ordered[-1] else min(size, engine.wanted)
        size -= share
        effects += _resize(engine, share)
    return effects


def _resize(engine: Running, replicas: int) -> list[Effect]:
    if engine.wanted == replicas:
        return []
    reference = Reference.to(engine.manifest)
    return [Patch(reference, {"spec": {"replicas": replicas}}, engine.manifest["metadata"].get("uid"))]


def _take_away(draft: Draft, olds: list[Running], selected: Selection, label: str) -> list[Effect]:
    """Deletes engines that get no requests: at once what never served, the former one after its requests have ended."""
    idle = [engine for engine in olds if not selected.covers(engine.label)]
    since = seconds_since(_switched_at(draft.snapshot.service), draft.now)
    left = draft.snapshot.settings.drain_seconds - since if since is not None and selected.label == label else 0.0
    if idle and left > 0:
        return [RequeueAfter(left)]
    return [Delete(Reference.to(engine.manifest), engine.manifest["metadata"].get("uid")) for engine in idle]


def _keep_size(draft: Draft, engines: dict[str, Running], selected: Selection, replicas: int) -> Draft:
    """Nothing to roll out: whoever serves follows spec.replicas."""
    serving = [engine for engine in engines.values() if selected.covers(engine.label)]
    return draft.doing(*_shrink(serving, replicas)) if serving else draft


def _switched_at(service: Object | None) -> str | None:
    return None if service is None else service["metadata"].get("annotations", {}).get(SWITCHED_AT)
