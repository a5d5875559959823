"""Brings the target engine up beside the active one, moves the requests over, then takes the old one away.

With strategy Rolling replicas move over as they become ready (rollout_sizes.py). With Canary the gateway sends the
target a growing share first (canary.py); once it has passed every step, it takes over as with Rolling. What is taken
back leaves the old engine as it was, and is not tried again until the spec changes.
"""

from __future__ import annotations

from dataclasses import replace

from enginewright_api.identity import digest_of
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.rollout_status import RolloutState, RolloutStatus

from .bringing_up import bring_up, changes_pods, resize, shrink
from .canary import Look, advance, next_look_seconds, sentence, taken_back
from .capacity import shortfall
from .conditions import FALSE, in_transition, is_false, rfc3339, seconds_since
from .draft import Draft, Target
from .effects import Delete, Effect, Object, Reference, RequeueAfter
from .engines import Running, Selection, running_engines, selection
from .render.services import SWITCHED_AT
from .rollout_progress import ROLLED_OUT, failed, progress
from .rollout_sizes import Sizes, canary_sizes, next_sizes


def rollout(draft: Draft) -> Draft:
    """Sets RolledOut and decides on Deployments or LeaderWorkerSets, the Service's selector and the canary's share."""
    engines, selected = running_engines(draft.snapshot), selection(draft.snapshot)
    draft = replace(draft, selection=selected, rollout=draft.snapshot.status().rollout)
    spec, target = draft.spec, draft.target
    if spec is None:
        return _without_canary(draft)
    if target is None or draft.accelerator_class is None:
        return _keep_size(_without_canary(draft), engines, selected, spec.replicas)
    label = _label(target)
    olds = [engine for engine in engines.values() if engine.label != label]
    serving = [engine for engine in olds if selected.covers(engine.label)]
    present = engines.get(label)
    draft = replace(draft, rollout=_record(draft, spec, label, serving, selected))
    if spec.rollout.paused and (olds or present is None):
        if draft.rollout is None or not draft.rollout.weight:
            draft = _keep_size(draft, engines, selected, spec.replicas)
        return draft.found(ROLLED_OUT, is_false("Paused", "rollout.paused: set it to false to go on"))
    return _go_on(draft, target, present, olds, serving)


def _go_on(draft: Draft, target: Target, present: Running | None, olds: list[Running], serving: list[Running]) -> Draft:
    """One step of what is under way."""
    spec, selected, label = draft.spec, draft.selection, _label(target)
    assert spec is not None  # noqa: S101 - checked by the rollout
    record = draft.rollout
    if record is not None and record.state is RolloutState.ROLLED_BACK:
        return _back(draft, record, present, olds, serving)
    if record is not None and record.state is RolloutState.CANARY:
        return _canary(draft, record, target, present, serving)
    if record is not None and present is not None:
        sizes = _promoted(present, serving, label, whole=present.ready >= spec.replicas)
    else:
        sizes = next_sizes(
            spec.replicas, spec.rollout.max_surge, target=present, serving=serving, selected=selected, label=label
        )
    steps = [*bring_up(draft, target, present, sizes.target), *shrink(serving, sizes.old)]
    steps += _take_away(draft, olds, label)
    draft = replace(draft, selection=sizes.selection).doing(*steps)
    same_pods = not any(changes_pods(step, present) for step in steps)
    lacking = shortfall(draft, present, sizes.target)
    at_rest = selected.label == label and not olds and same_pods
    draft = progress(draft, target, present, at_rest=at_rest, lacking=lacking)
    finding = draft.findings[ROLLED_OUT]
    if finding.status is FALSE and serving and spec.rollout.max_surge == 0:
        # In place the old engine has given replicas up for one that does not come: they are wanted back.
        record = taken_back(_begun(draft, spec, target), f"{finding.reason}: {finding.message}", draft.now)
        draft = replace(draft, rollout=record).found(ROLLED_OUT, is_false("RolledBack", record.message))
    return draft


def _record(
    draft: Draft, spec: OptimizedModelSpec, label: str, serving: list[Running], selected: Selection
) -> RolloutStatus | None:
    """What is noted of this very engine; a canary begins where there is another one that serves."""
    noted = draft.rollout
    if noted is not None and (noted.label != label or not serving):
        noted = None
    if noted is not None and noted.state is RolloutState.ROLLED_BACK:
        if noted.spec_digest == _spec_digest(draft):
            return noted
        noted = None
    if selected.covers(label) or spec.rollout.canary is None or not serving or spec.replicas == 0:
        return None
    assert draft.target is not None  # noqa: S101 - checked by the rollout
    return noted or _begun(draft, spec, draft.target)


def _begun(draft: Draft, spec: OptimizedModelSpec, target: Target) -> RolloutStatus:
    state = RolloutState.CANARY if spec.rollout.canary is not None else RolloutState.PROMOTED
    return RolloutStatus(
        artifact_digest=target.artifact.digest, spec_digest=_spec_digest(draft), state=state, since=rfc3339(draft.now)
    )


def _spec_digest(draft: Draft) -> str:
    """Of everything in the spec that could make the same engine fare otherwise."""
    spec = dict(draft.snapshot.manifest["spec"])
    for scale in ("replicas", "scaling"):
        spec.pop(scale, None)
    spec["rollout"] = {key: value for key, value in spec.get("rollout", {}).items() if key != "paused"}
    return digest_of(spec)[:16]


def _canary(
    draft: Draft, record: RolloutStatus, target: Target, present: Running | None, serving: list[Running]
) -> Draft:
    """The target beside the engine that serves, with the share of the requests that it has earned."""
    spec = draft.spec
    assert spec is not None  # noqa: S101 - checked by the rollout
    assert spec.rollout.canary is not None  # noqa: S101 - a record of a canary says so
    look = Look(spec.rollout, spec.replicas, present, draft.snapshot.traffic, draft.now)
    record = advance(record, look)
    draft = replace(draft, rollout=record)
    if record.state is RolloutState.ROLLED_BACK:
        olds = [engine for engine in running_engines(draft.snapshot).values() if engine.label != record.label]
        return _back(draft, record, present, olds, serving)
    step = spec.rollout.canary.steps[min(record.step, len(spec.rollout.canary.steps) - 1)]
    size, old = canary_sizes(
        spec.replicas, spec.rollout.max_surge, step.weight,
        target=present, serving=serving, receiving=record.weight > 0,
    )  # fmt: skip
    others = [
        engine
        for engine in running_engines(draft.snapshot).values()
        if engine.label != record.label and not draft.selection.covers(engine.label)
    ]
    steps = [*bring_up(draft, target, present, size), *shrink(serving, old)]
    steps += _take_away(draft, others, record.label)
    draft = draft.doing(*steps, RequeueAfter(next_look_seconds(record, look)))
    lacking = shortfall(draft, present, size)
    reason = "InsufficientCapacity" if lacking else "Progressing"
    message = f"canary of {target.rung.title}, {sentence(record, look)}" + (f"; {lacking}" if lacking else "")
    return draft.found(ROLLED_OUT, in_transition(reason, message))


def _back(
    draft: Draft, record: RolloutStatus, present: Running | None, olds: list[Running], serving: list[Running]
) -> Draft:
    """Requests and replicas return to the engine that served before; the other one goes when it is done."""
    spec, selected = draft.spec, draft.selection
    assert spec is not None  # noqa: S101 - checked by the rollout
    # What its pods say by now is not what it was taken back for.
    draft = failed(draft, "RolledBack", record.message, None)
    if present is not None and selected.covers(record.label):
        # Replaced in place half-way: the same way back.
        old = max(serving, key=lambda engine: (engine.ready, engine.name))
        sizes = next_sizes(
            spec.replicas, spec.rollout.max_surge,
            target=old, serving=[present], selected=selected, label=old.label,
        )  # fmt: skip
        draft = replace(draft, selection=sizes.selection)
        return draft.doing(*resize(old, sizes.target), *resize(present, sizes.old))
    draft = draft.doing(*shrink(serving, spec.replicas))
    idle = [engine for engine in olds if engine not in serving] + ([present] if present is not None else [])
    since = seconds_since(record.since, draft.now)
    left = draft.snapshot.settings.drain_seconds - since if since is not None else 0.0
    if any(engine.ready for engine in idle) and left > 0:
        return draft.doing(RequeueAfter(left))
    return draft.doing(*(_deleted(engine) for engine in idle))


def _promoted(present: Running, serving: list[Running], label: str, *, whole: bool) -> Sizes:
    """A canary that has passed keeps its replicas until the Service selects it, then goes on as any other engine."""
    return Sizes(present.wanted, sum(engine.wanted for engine in serving), Selection(True, label if whole else None))


def _label(target: Target) -> str:
    return target.artifact.digest.removeprefix("sha256:")[:32]


def _take_away(draft: Draft, olds: list[Running], label: str) -> list[Effect]:
    """Deletes engines that get no requests: at once what never served, the former one after its requests have ended."""
    selected = draft.selection
    idle = [engine for engine in olds if not selected.covers(engine.label)]
    since = seconds_since(_switched_at(draft.snapshot.service), draft.now)
    left = draft.snapshot.settings.drain_seconds - since if since is not None and selected.label == label else 0.0
    if idle and left > 0:
        return [RequeueAfter(left)]
    return [_deleted(engine) for engine in idle]


def _deleted(engine: Running) -> Delete:
    return Delete(Reference.to(engine.manifest), engine.manifest["metadata"].get("uid"))


def _without_canary(draft: Draft) -> Draft:
    """While it is not known which engine is wanted, nobody watches over a canary: it gets no requests."""
    record = draft.rollout
    kept = record is not None and record.state is RolloutState.ROLLED_BACK
    return draft if kept else replace(draft, rollout=None)


def _keep_size(draft: Draft, engines: dict[str, Running], selected: Selection, replicas: int) -> Draft:
    """Nothing to roll out: whoever serves follows spec.replicas."""
    serving = [engine for engine in engines.values() if selected.covers(engine.label)]
    return draft.doing(*shrink(serving, replicas)) if serving else draft


def _switched_at(service: Object | None) -> str | None:
    return None if service is None else service["metadata"].get("annotations", {}).get(SWITCHED_AT)
