"""Effects on Deployments: what the target's pods need, and more or fewer replicas for the engines beside it."""

from __future__ import annotations

from .draft import Draft, Target
from .drift import covers, drifted, stamped
from .effects import Apply, Effect, Patch, Reference
from .engines import Running
from .render.serving import Engine, batching_config_map, deployment


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
    wanted = stamped(deployment(snapshot, spec, engine, accelerator, replicas=size))
    if drifted(present.manifest if present is not None else None, wanted):
        effects.append(Apply(wanted))
    return effects


def changes_pods(step: Effect, present: Running | None) -> bool:
    """Whether a step gives the target other pods, as opposed to more or fewer of the same."""
    if not isinstance(step, Apply) or step.manifest["kind"] != "Deployment":
        return False
    return present is None or not covers(present.manifest["spec"]["template"], step.manifest["spec"]["template"])


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
