"""Can one accelerator class run the recipe, and do its nodes have room for a replica?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.optimization import Format
from enginewright_api.optimized_model import OptimizedModelSpec

from .acceptance import ACCEPTED
from .capacity import units_of_a_replica
from .choice import search_of
from .classes import HAS_NODES, has_nodes
from .conditions import Finding, is_false, seconds_since
from .draft import Draft, Rung
from .reading import mapping
from .recipes import recipes
from .remaking import did_not_fit
from .spread import spreading
from .will_fit import WILL_NOT_FIT, known_sizes, misfit


@dataclass(frozen=True, slots=True, eq=False)
class Fitness:
    """One class of the list, and what was found out about it."""

    accelerator: AcceleratorClass
    draft: Draft
    """The model on this class: its rungs, or Accepted withdrawn with what stands against it."""
    too_small: str = ""
    """Why nothing that the recipe makes fits into the memory of the class; empty where something does, or may."""

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.accelerator.metadata.name

    @property
    def able(self) -> bool:
        """Whether the class can run the recipe, as far as that is known."""
        return self.draft.accepted and not self.too_small

    @property
    def refusal(self) -> Finding:
        """What Accepted would say on this class."""
        return is_false(WILL_NOT_FIT, self.too_small) if self.too_small else self.draft.findings[ACCEPTED]

    @property
    def has_nodes(self) -> bool | None:
        """Whether there are nodes of the class that have what a pod asks for; None before they were counted."""
        return has_nodes(self.accelerator)

    @property
    def without_nodes_since(self) -> str | None:
        """RFC 3339; None where there are nodes."""
        conditions = self.accelerator.status.conditions
        return next((item.last_transition_time for item in conditions if self.has_nodes is False
                     and item.type == HAS_NODES), None)  # fmt: skip

    @property
    def seconds_without_nodes(self) -> float:
        """For how long there have been no nodes; 0 where there are, and where a clock was set back."""
        return max(0.0, seconds_since(self.without_nodes_since, self.draft.now) or 0.0)

    @property
    def has_room(self) -> bool | None:
        """Whether its nodes have a replica's accelerators, be they taken or not; None before they were counted.

        What others take at the moment does not count: models would wander with each other's load.
        """
        if not self.has_nodes or self.accelerator.spec.resource is None:
            return self.has_nodes
        return self.accelerator.status.allocatable >= self._units

    @property
    def _units(self) -> int:
        assert self.draft.spec is not None  # noqa: S101 - nothing is asked about a spec that does not parse
        return units_of_a_replica(self.draft.spec, self.accelerator)

    @property
    def against(self) -> str:
        """What stands against the class, in one sentence; empty where nothing does."""
        if self.too_small:
            return f"too small: {self.too_small}"
        if not self.able:
            return self.refusal.message
        if self.has_nodes is False:
            return f"no nodes since {self.without_nodes_since}"
        if self.has_room is False:
            return f"its nodes have {self.accelerator.status.allocatable} accelerators, a replica takes {self._units}"
        return ""


def fitness(draft: Draft, accelerator: AcceleratorClass) -> Fitness:
    """Resolves the recipe for the class, as if it were the only one listed."""
    spec = draft.spec
    assert spec is not None  # noqa: S101 - the caller has an accepted spec
    draft = replace(draft, accelerator_class=accelerator)
    wanted = _formats(spec)
    if lacks := [format_ for format_ in wanted if format_ not in accelerator.spec.formats]:
        draft = draft.found(ACCEPTED, is_false("FormatNotSupported", _lacking(accelerator, lacks)))
    return Fitness(accelerator, recipes(spreading(draft)))


def _formats(spec: OptimizedModelSpec) -> list[Format]:
    """Formats that some rung computes in; the plain model runs everywhere."""
    formats = [blocks.quantization.format for blocks in spec.optimization.rungs() if blocks.quantization is not None]
    return [format_ for format_ in dict.fromkeys(formats) if format_ not in (Format.NONE, Format.MIXED)]


def _lacking(accelerator: AcceleratorClass, lacks: Sequence[Format]) -> str:
    named, has = (", ".join(item.value for item in items) for items in (lacks, accelerator.spec.formats))
    return (
        f"optimization: class {accelerator.metadata.name} lacks {named} (it has {has}); choose another format or class"
    )


def held_against_memory(look: Fitness, *, found_before: bool) -> Fitness:
    """The class with what its memory is too small for, if that is every rung, or all that a search has come to.

    By the sizes of the source where a build has told them, else by what builds of these very recipes ended with.
    `found_before`: they did, and may be gone by now.
    """
    draft, spec = look.draft, look.draft.spec
    if not look.able or spec is None:
        return look
    said = [(rung, why) for rung in draft.rungs if (why := shortage(look, rung))]
    whole = bool(said) and len(said) == len(draft.rungs)
    if said and not whole and spec.optimization.profile is not None:
        found = search_of(draft, spec)
        tried = {trial.candidate.rung.build_name for trial in found.trials}
        whole = found.under_way is None and tried <= {rung.build_name for rung, _ in said}
    if whole:
        return replace(look, too_small=_sentence(said))
    if found_before and known_sizes(draft.snapshot, spec.source) is None:
        return replace(look, too_small=f"its builds ended with {WILL_NOT_FIT}")
    return look


def shortage(look: Fitness, rung: Rung) -> str:
    """Why a rung does not fit into the memory of the class; empty where it does, or nobody knows."""
    snapshot = look.draft.snapshot
    if (failure := misfit(snapshot, rung)) is not None:
        return failure.message
    if not did_not_fit(snapshot, rung.build_name, look.accelerator):
        return ""
    told = mapping(snapshot.builds.get(rung.build_name), "status", "failure").get("message")
    return str(told or f"its build ended with {WILL_NOT_FIT}")


def _sentence(said: Sequence[tuple[Rung, str]]) -> str:
    """`INT8 on OpenVINO: serving needs about …; FP16 …`; without the recipe where all say the same."""
    sentences = list(dict.fromkeys(why for _, why in said))
    return sentences[0] if len(sentences) == 1 else "; ".join(f"{rung.title}: {why}" for rung, why in said)
