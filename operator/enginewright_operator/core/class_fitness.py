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
from .draft import Draft
from .recipes import recipes
from .remaking import WILL_NOT_FIT, did_not_fit
from .spread import spreading


@dataclass(frozen=True, slots=True, eq=False)
class Fitness:
    """One class of the list, and what was found out about it."""

    accelerator: AcceleratorClass
    draft: Draft
    """The model on this class: its rungs, or Accepted withdrawn with what stands against it."""
    too_small: bool = False
    """Builds found that nothing the recipe makes fits into the memory of the class."""

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.accelerator.metadata.name

    @property
    def able(self) -> bool:
        """Whether the class can run the recipe, as far as that is known before a build."""
        return self.draft.accepted

    @property
    def refusal(self) -> Finding:
        """What Accepted would say on this class."""
        return self.draft.findings[ACCEPTED]

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
        if not self.able:
            return self.refusal.message
        if self.too_small:
            return f"too small: its builds ended with {WILL_NOT_FIT}"
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


def is_too_small(look: Fitness) -> bool:
    """Whether builds say so of every rung, or of all that a search has come to.

    The operator does not know a model's sizes: the builder reads them, and fails before it begins.
    """
    draft, spec = look.draft, look.draft.spec
    if not look.able or spec is None:
        return False
    names = [rung.build_name for rung in draft.rungs if did_not_fit(draft.snapshot, rung.build_name, look.accelerator)]
    if not names or spec.optimization.profile is None:
        return bool(names) and len(names) == len(draft.rungs)
    found = search_of(draft, spec)
    return found.under_way is None and {trial.candidate.rung.build_name for trial in found.trials} <= set(names)
