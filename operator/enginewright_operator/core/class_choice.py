"""On which of the accelerator classes listed a model runs.

The first that can run the recipe and whose nodes have room for a replica; where none has room, the first that can run
it. What was taken stays: a class that comes back does not pull a model over, for a move costs a build and a rollout.
It is chosen anew when the list or the recipe changes, when the class can no longer run the recipe, and when its nodes
have been gone for some minutes while replicas are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enginewright_api.optimized_model import ClassChoice, LastFailure, RungStatus

from .acceptance import ACCEPTED
from .class_fitness import Fitness, fitness, held_against_memory, shortage
from .conditions import Finding, in_transition, is_false, is_true
from .draft import Draft
from .effects import Emit, RequeueAfter
from .engines import running_engines
from .remaking import class_of, made_anew, runs_on

GONE_SECONDS = 300.0
"""How long a class may be without nodes before models leave it: repaired and replaced nodes come back sooner."""
_PENDING = "Pending"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was decided before."""

    name: str
    listed: tuple[str, ...] | None = None
    """The list that it was taken from; None where nobody wrote it down."""
    too_small: frozenset[str] = frozenset()
    """Classes of the list that builds had found too small."""


def class_choice(draft: Draft) -> Draft:
    """Sets the class and the rungs for it, and says in Accepted which and why; withdraws that where none will do."""
    spec = draft.spec
    if not draft.accepted or spec is None:
        return draft
    looks = [fitness(draft, draft.snapshot.classes[name]) for name in spec.hardware.accelerator_classes]
    before = _before(draft, looks) if len(looks) > 1 else None
    same = before is not None and _is_unchanged(draft, before, looks)
    known = before.too_small if before is not None and same else frozenset[str]()
    looks = [held_against_memory(look, found_before=look.name in known) for look in looks]
    candidates = [look for look in looks if look.able]
    if not candidates:
        return _refused(draft, looks, before)
    if len(looks) == 1:
        return made_anew(_taking(looks, looks[0]))
    kept = next((look for look in candidates if before is not None and same and look.name == before.name), None)
    if kept is None and len(candidates) > 1 and (uncounted := _uncounted(candidates)) is not None:
        message = f"waiting until the nodes of class {uncounted.name} are counted"
        return draft.found(ACCEPTED, in_transition(_PENDING, message))
    taken = _anew(candidates) if kept is None else _moved(draft, candidates, kept)
    found = made_anew(_taking(looks, taken))
    if before is not None and before.name != taken.name:
        return found.doing(_event(draft, before.name, taken, looks))
    return found.doing(RequeueAfter(left)) if taken is kept and (left := _left_seconds(draft, kept)) > 0 else found


def _anew(candidates: Sequence[Fitness]) -> Fitness:
    return next((look for look in candidates if look.has_room), candidates[0])


def _is_unchanged(draft: Draft, before: Taken, looks: Sequence[Fitness]) -> bool:
    """Whether list and recipe are those that the class was taken for."""
    status = draft.snapshot.status()
    if before.listed not in (None, tuple(look.name for look in looks)):
        return False
    begun = {rung.engine_build for rung in status.rungs}
    begun |= {engine.engine_build for engine in (status.target, status.active) if engine is not None}
    rungs = [rung for look in looks if look.name == before.name for rung in look.draft.rungs]
    return not begun or any(rung.build_name in begun for rung in rungs)


def _uncounted(candidates: Sequence[Fitness]) -> Fitness | None:
    """A class that would come first, if only it were known whether it has nodes."""
    first = next((look for look in candidates if look.has_room is not False), None)
    return first if first is not None and first.has_room is None else None


def _moved(draft: Draft, candidates: Sequence[Fitness], kept: Fitness) -> Fitness:
    """Where a model goes that was on `kept`: mostly nowhere."""
    active = draft.snapshot.status().active
    home = next((look for look in candidates if active is not None and look.name == active.accelerator_class), kept)
    if home is not kept and home.has_room and candidates.index(home) < candidates.index(kept):
        # It was left for want of nodes, and its engine still has the requests: what is under way is called off.
        return home
    if _is_missed(draft, kept) and kept.seconds_without_nodes >= GONE_SECONDS:
        return next((look for look in candidates if look is not kept and look.has_room), kept)
    return kept


def _left_seconds(draft: Draft, kept: Fitness) -> float:
    """Until a class without nodes is left; 0 where that is not what the model waits for."""
    return max(0.0, GONE_SECONDS - kept.seconds_without_nodes) if _is_missed(draft, kept) else 0.0


def _is_missed(draft: Draft, look: Fitness) -> bool:
    """Whether there are no nodes of a class, and the model wants them.

    Replicas that are ready have nodes, whatever the count says (a device plugin that restarts, a selector under
    repair); and a model at zero replicas has let its nodes go itself, where an autoscaler takes unused ones away.
    """
    assert draft.spec is not None  # noqa: S101 - checked by the policy
    if look.has_nodes is not False:
        return False
    builds, engines = draft.snapshot.builds, running_engines(draft.snapshot).values()
    ready = sum(engine.ready for engine in engines if runs_on(builds.get(engine.build_name), look.accelerator))
    return ready < draft.spec.replicas


def _taking(looks: Sequence[Fitness], taken: Fitness) -> Draft:
    choice = ClassChoice(
        taken=taken.name,
        listed=[look.name for look in looks],
        too_small=[look.name for look in looks if look.too_small],
    )
    return replace(taken.draft, class_choice=choice).found(ACCEPTED, is_true("Valid", _sentence(looks, taken)))


def _before(draft: Draft, looks: Sequence[Fitness]) -> Taken | None:
    """What the status says; where that was lost, the class of the engine that serves, else of the builds under way."""
    status, builds = draft.snapshot.status(), draft.snapshot.builds
    said = status.class_choice
    if said is not None:
        return Taken(said.taken, tuple(said.listed), frozenset(said.too_small))
    if any(item.type == ACCEPTED and item.reason == _PENDING for item in status.conditions):
        return None
    engines = sorted(running_engines(draft.snapshot).values(), key=lambda engine: (-engine.ready, engine.name))
    names = [*(engine.build_name for engine in engines), *(rung.engine_build for rung in status.rungs)]
    for build in [builds[name] for name in names if name in builds]:
        there = [look.name for look in looks if runs_on(build, look.accelerator)]
        if there:
            return Taken(class_of(build) if class_of(build) in there else there[0])
    return None


def _sentence(looks: Sequence[Fitness], taken: Fitness) -> str:
    """`class b of a, b; a: no nodes since …`."""
    if len(looks) == 1:
        return f"class {taken.name}"
    parts = [f"class {taken.name} of {', '.join(look.name for look in looks)}"]
    earlier = looks[: looks.index(taken)]
    parts += [f"{look.name}: {look.against or _PASSED_OVER}" for look in earlier]
    if taken.against:
        parts.append(f"{taken.name}: {taken.against}")
    return "; ".join(parts)


_PASSED_OVER = "has room by now, and takes over when the recipe or the list changes"


def _refused(draft: Draft, looks: Sequence[Fitness], before: Taken | None) -> Draft:
    """What stands against every class; told once where it has nothing to do with the class."""
    refusals = [look.refusal for look in looks]
    # Such as to look again for what a cluster lacks.
    effects = [effect for look in looks for effect in look.draft.effects]
    said = list(dict.fromkeys(refusal.message for refusal in refusals))
    message = said[0]
    if len(said) > 1:
        message = "; ".join(f"class {look.name}: {look.refusal.message}" for look in looks)
    finding: Finding = is_false(refusals[0].reason, message)
    small = [look for look in looks if look.too_small]
    if small:
        # Of the class taken before, if it is one of them: by its builds that choice is known again.
        told = next((look for look in small if before is not None and look.name == before.name), small[0])
        draft = replace(draft, rung_statuses=_unbuilt(told), failure=_shortage_of(told))
    return draft.found(ACCEPTED, finding).doing(*effects)


def _unbuilt(small: Fitness) -> tuple[RungStatus, ...] | None:
    """What would be built on a class that is too small for it; a search keeps what it has come to."""
    if small.draft.pool is not None:
        return None
    return tuple(
        RungStatus(engine_build=rung.build_name, format=rung.format, message=f"will not fit: {shortage(small, rung)}")
        for rung in small.draft.rungs
    )


def _shortage_of(small: Fitness) -> LastFailure:
    return LastFailure(stage="plan", reason=small.refusal.reason, message=small.too_small, time="")


def _event(draft: Draft, left: str, taken: Fitness, looks: Sequence[Fitness]) -> Emit:
    former = next((look for look in looks if look.name == left), None)
    since = former.without_nodes_since if former is not None else None
    why = f": {former.against}" if former is not None and former.against else ""
    return Emit(
        about=draft.snapshot.manifest,
        type="Normal",
        reason="AcceleratorClassChanged",
        message=f"from class {left} to {taken.name}{why}",
        occasion=f"{left}-{taken.name}-{since}-{draft.snapshot.generation}",
    )
