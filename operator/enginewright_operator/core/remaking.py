"""Engine builds that were begun for another accelerator class and cannot end there: made anew for the class taken.

Classes that do not differ in what an engine depends on (an L4 and an L40S; spot nodes and others) share their builds.
A build runs on the nodes of the class that it was made for, and is held against that class's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import BuildPhase

from .classes import has_nodes
from .draft import Draft
from .effects import Delete, Effect, Object, Reference
from .engine_builds import owners_of
from .reading import mapping
from .snapshot import ModelSnapshot
from .will_fit import WILL_NOT_FIT, memory_gib


def did_not_fit(snapshot: ModelSnapshot, build_name: str, accelerator: AcceleratorClass) -> bool:
    """Whether a build says that the rung does not fit into this class.

    One that said so of a class with less memory says nothing, if it may be made anew: it may not where other models
    share it, which run where it does not fit.
    """
    manifest = snapshot.builds.get(build_name)
    if not _says_so(manifest):
        return False
    shared = any(owner.get("uid") != snapshot.uid for owner in owners_of(manifest or {"metadata": {}}))
    return shared or memory_gib(manifest) >= accelerator.spec.memory_gib


def made_anew(draft: Draft) -> Draft:
    """Deletes such builds of the draft's rungs, and goes on as if they were not there."""
    snapshot, taken, effects, names = draft.snapshot, draft.accelerator_class, list[Effect](), set[str]()
    if taken is None:
        return draft
    for rung in draft.rungs:
        manifest = snapshot.builds.get(rung.build_name)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            continue
        smaller = _says_so(manifest) and not did_not_fit(snapshot, rung.build_name, taken)
        if smaller or _waits_in_vain(draft, manifest, taken):
            effects.append(Delete(Reference.to(manifest), manifest["metadata"].get("uid")))
            names.add(rung.build_name)
    if not names:
        return draft
    without = replace(snapshot, builds=_Without(snapshot.builds, frozenset(names)))
    return replace(draft, snapshot=without).doing(*effects)


def _waits_in_vain(draft: Draft, build: Object, taken: AcceleratorClass) -> bool:
    """Whether it is not done, its class has no nodes, and the one taken has."""
    made_for = draft.snapshot.classes.get(class_of(build))
    if made_for is None or made_for.metadata.name == taken.metadata.name or _has_ended(build):
        return False
    return has_nodes(made_for) is False and has_nodes(taken) is True


def class_of(build: Object | None) -> str:
    """Class that an EngineBuild was made for; empty where it is gone."""
    return str(mapping(build, "spec", "accelerator").get("acceleratorClass", ""))


def runs_on(build: Object | None, accelerator: AcceleratorClass) -> bool:
    """Whether what a build makes is what would be built for this class."""
    facts, spec = mapping(build, "spec", "accelerator"), accelerator.spec
    made_for = tuple(facts.get(name, "") for name in ("vendor", "computeCapability", "architecture"))
    return made_for == (spec.vendor, spec.compute_capability, spec.architecture)


def _says_so(build: Object | None) -> bool:
    status = mapping(build, "status")
    return status.get("phase") == BuildPhase.FAILED and mapping(status, "failure").get("reason") == WILL_NOT_FIT


def _has_ended(build: Object) -> bool:
    return mapping(build, "status").get("phase") in (BuildPhase.SUCCEEDED, BuildPhase.FAILED)


@dataclass(frozen=True, slots=True)
class _Without(Mapping[str, Object]):
    """Builds without some of them, however many there are."""

    whole: Mapping[str, Object]
    names: frozenset[str]

    def __getitem__(self, name: str) -> Object:
        if name in self.names:
            raise KeyError(name)
        return self.whole[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.whole if name not in self.names)

    def __len__(self) -> int:
        return sum(1 for _ in self)
