"""The ladder's recipes: what each rung builds, with no default left open, and the key that names it."""

from __future__ import annotations

from dataclasses import replace

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.names import engine_build_name
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.recipe import Toolchain, build_key
from enginewright_api.support import unavailable, unavailable_evidence

from .acceptance import ACCEPTED, sentence_for
from .availability import Unavailable, unused_settings
from .candidates import pool_of
from .conditions import is_false
from .draft import Draft, Rung
from .resolution import evidence_request, facts_of, resolve_recipe


def recipes(draft: Draft) -> Draft:
    """Resolves the rungs; withdraws Accepted where one asks for what nothing builds yet."""
    spec, accelerator_class = draft.spec, draft.accelerator_class
    if not draft.accepted or spec is None or accelerator_class is None:
        return draft
    rungs = resolve_rungs(spec, accelerator_class, draft.snapshot.settings.toolchain)
    if spec.optimization.profile is not None:
        return _pool(draft, spec, accelerator_class, rungs[0])
    missing = list(unavailable_evidence(spec.task, rungs[0].evidence))
    missing += unused_settings(spec, [rung.recipe for rung in rungs])
    for rung in rungs:
        found = unavailable(rung.recipe, rung.accelerator)
        missing += [(_where(field, spec, rung.number), why) for field, why in found]
    return _refused(draft, missing) if missing else replace(draft, rungs=rungs)


def _pool(draft: Draft, spec: OptimizedModelSpec, accelerator_class: AcceleratorClass, given: Rung) -> Draft:
    """What a search may try. `given` has the blocks that the spec names, all together: each of them must be there."""
    found = pool_of(spec, accelerator_class, draft.snapshot.settings.toolchain)
    missing = list(unavailable_evidence(spec.task, given.evidence))
    missing += [
        (field, why)
        for field, why in unavailable(given.recipe, given.accelerator)
        # Not asked for, so not missed: some backend may lack the plain model.
        if given.optimized or not field.startswith("optimization.")
    ]
    if not found.precisions and not missing:
        name = accelerator_class.metadata.name
        missing.append(("optimization.profile", f"nothing can be built for task {spec.task.value} on class {name}"))
    missing += unused_settings(spec, [candidate.rung.recipe for candidate in found.precisions])
    if missing:
        return _refused(draft, missing)
    return replace(draft, rungs=tuple(candidate.rung for candidate in found.precisions), pool=found)


def _refused(draft: Draft, missing: list[Unavailable]) -> Draft:
    return draft.found(ACCEPTED, is_false("FeatureNotAvailable", sentence_for(list(dict.fromkeys(missing)))))


def resolve_rungs(
    spec: OptimizedModelSpec, accelerator_class: AcceleratorClass, toolchain: Toolchain
) -> tuple[Rung, ...]:
    """All rungs in the user's order: `optimization` itself, then each fallback; equal ones once."""
    facts = facts_of(accelerator_class)
    evidence = evidence_request(spec)
    rungs: dict[str, Rung] = {}
    for number, blocks in enumerate(spec.optimization.rungs()):
        recipe = resolve_recipe(spec, blocks, facts)
        key = build_key(recipe, toolchain, facts)
        rungs.setdefault(key, Rung(number, recipe, key, engine_build_name(key), evidence, facts))
    return tuple(rungs.values())


def _where(field: str, spec: OptimizedModelSpec, number: int) -> str:
    """The field as the user wrote it: below `fallbacks[n]` where that fallback brought the block."""
    if number == 0 or not field.startswith("optimization.") or ".calibration" in field:
        return field
    block = field.split(".")[1]
    brought = spec.optimization.fallbacks[number - 1].wire()
    return field.replace("optimization.", f"optimization.fallbacks[{number - 1}].", 1) if block in brought else field
