"""Effects on what serves: what the target's pods need, and more or fewer replicas for the engines beside it."""

from __future__ import annotations

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.optimized_model import OptimizedModelSpec

from .draft import Draft, Target
from .drift import covers, drifted, stamped
from .effects import Apply, Delete, Effect, Patch, Reference
from .engines import Running
from .render.groups import leader_worker_set
from .render.serving import Engine, batching_config_map, deployment
from .spread import Spread, spread_of


def bring_up(draft: Draft, target: Target, present: Running | None, size: int) -> list[Effect]:
    """Applies what the target's pods need, where it is not there yet or reads otherwise."""
    spec, accelerator = draft.spec, draft.accelerator_class
    assert spec is not None  # noqa: S101 - checked by the rollout
    assert accelerator is not None  # noqa: S101 - checked by the rollout
    snapshot = draft.snapshot
    engine = Engine(target.artifact, target.rung.key, target.rung.build_name)
    config_maps = {item["metadata"]["name"]: item for item in snapshot.config_maps}
    batching = stamped(batching_config_map(snapshot, spec))
    effects: list[Effect] = []
    if drifted(config_maps.get(batching["metadata"]["name"]), batching):
        effects.append(Apply(batching))
    spread = _spread(spec, accelerator, present)
    if spread.nodes > 1:
        wanted = stamped(leader_worker_set(snapshot, spec, engine, accelerator, spread, replicas=size))
    else:
        wanted = stamped(deployment(snapshot, spec, engine, accelerator, replicas=size))
    there = present.manifest if present is not None else None
    if there is not None and there["kind"] != wanted["kind"]:
        # The class says otherwise than before how many accelerators a node has, and nothing serves yet.
        effects.append(Delete(Reference.to(there), there["metadata"].get("uid")))
        there = None
    if drifted(there, wanted):
        effects.append(Apply(wanted))
    return effects


def _spread(spec: OptimizedModelSpec, accelerator: AcceleratorClass, present: Running | None) -> Spread:
    """What works stays spread as it is, whatever the class says by now of its nodes."""
    if present is None or present.ready == 0:
        return spread_of(spec, accelerator)
    return Spread(present.nodes, spec.hardware.accelerators_per_replica // present.nodes)


def changes_pods(step: Effect, present: Running | None) -> bool:
    """Whether a step gives the target other pods, as opposed to more or fewer of the same."""
    if not isinstance(step, Apply) or step.manifest["kind"] not in ("Deployment", "LeaderWorkerSet"):
        return False
    part = "template" if step.manifest["kind"] == "Deployment" else "leaderWorkerTemplate"
    return present is None or not covers(present.manifest["spec"].get(part), step.manifest["spec"][part])


def shrink(serving: list[Running], size: int) -> list[Effect]:
    """Gives the old engines `size` replicas together, the one with most ready replicas first."""
    effects: list[Effect] = []
    ordered = sorted(serving, key=lambda item: (-item.ready, item.name))
    for engine in ordered:
        share = size if engine is ordered[-1] else min(size, engine.wanted)
        size -= share
        effects += resize(engine, share)
    return effects


def resize(engine: Running, replicas: int) -> list[Effect]:
    """Another number of replicas, as far as it is one."""
    if engine.wanted == replicas:
        return []
    reference = Reference.to(engine.manifest)
    return [Patch(reference, {"spec": {"replicas": replicas}}, engine.manifest["metadata"].get("uid"))]
