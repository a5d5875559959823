"""What a recipe search may try: precisions by backend, and steps that remove something of the network on top of one.

Everything is filtered by `enginewright_api.support`, so a technique takes part as soon as the builder has it. The order
is fixed by the spec and the class: equal specs walk the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.names import engine_build_name
from enginewright_api.optimization import (
    Blocks,
    Calibration,
    Distillation,
    Format,
    Granularity,
    KvCacheFormat,
    LowRank,
    Mixed,
    Profile,
    Pruning,
    PruningCriterion,
    PruningGranularity,
    Quantization,
    QuantizationMethod,
)
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.recipe import AcceleratorFacts, Recipe, Task, Toolchain, build_key
from enginewright_api.serving_spec import Backend
from enginewright_api.source import Dataset
from enginewright_api.support import SUPPORTED, Support, unavailable

from .draft import PIECES, Rung
from .resolution import default_dataset, evidence_request, facts_of, resolve_recipe

RECOVERY_STEPS = 300
"""Fine-tuning after each removal: what makes most removals pass, and minutes at most for an encoder on a CPU."""

_MIXED = (Format.INT8, Format.INT4)
_NEEDED: dict[Format, tuple[Format, ...]] = {Format.NONE: (), Format.MIXED: _MIXED}
"""Formats that a class must have, where that is not the format itself."""

GROUP_SIZE = 64
"""Weights per group where a format wants groups; head sizes and hence all widths of a transformer are multiples."""

_FOR_SPEED = (
    Format.INT8, Format.FP8, Format.NVFP4, Format.BF16, Format.FP16, Format.INT4, Format.MIXED, Format.NONE,
    Format.INT2,
)  # fmt: skip
"""Integer kernels first, then formats that other hardware makes fast, at last those that only save memory."""

_FOR_SIZE = (
    Format.INT4, Format.NVFP4, Format.INT2, Format.MIXED, Format.INT8, Format.FP8, Format.FP16, Format.BF16,
    Format.NONE,
)  # fmt: skip
"""Fewest bits first: where they pass, nothing with more bits is smaller. Generating text reads all weights for each
token, so there it is the order for speed too."""

BITS: dict[Format, float] = {
    Format.INT2: 2, Format.INT4: 4, Format.NVFP4: 4, Format.MIXED: 6, Format.INT8: 8, Format.FP8: 8,
    Format.FP16: 16, Format.BF16: 16, Format.NONE: 32,
}  # fmt: skip
"""Bits a weight, by which formats of one backend are compared before anything is measured."""

WEIGHT_ONLY = (Format.INT4, Format.INT2, Format.MIXED)
"""Formats that weights are stored in, not computed in."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done beside the precision. Steps of one `kind` are ordered from gentle to strong."""

    kind: str
    title: str
    variants: tuple[Blocks, ...]
    """The same step done better and less well; the first that is available is taken."""
    covers: tuple[str, ...] = ()
    """Kinds that take away a part of what this one does: pointless where it paid."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One recipe that may be built."""

    rung: Rung
    backend: Backend
    quantization: Quantization | None
    steps: tuple[Step, ...] = ()

    @property
    def format(self) -> Format:
        """Number format of the weights."""
        return self.quantization.format if self.quantization is not None else Format.NONE

    @property
    def title(self) -> str:
        """For people."""
        return self.rung.title


Missing = Callable[[Recipe, AcceleratorFacts], list[tuple[str, str]]]
"""What a recipe asks for that nothing builds, by field."""


@dataclass(frozen=True)
class Pool:
    """All precisions in the order of the search, and the chains of steps that go on top of the best of them."""

    spec: OptimizedModelSpec
    accelerator_class: AcceleratorClass
    toolchain: Toolchain
    missing: Missing = unavailable
    precisions: tuple[Candidate, ...] = ()
    chains: tuple[tuple[Step, ...], ...] = ()
    _made: dict[str, Candidate | None] = field(default_factory=dict, compare=False, repr=False)

    def extended(self, base: Candidate, step: Step) -> Candidate | None:
        """The base with one more step; None where the two do not go together or nothing builds that."""
        name = f"{base.rung.key} {step.kind} {step.title}"
        if name not in self._made:
            made = (
                _candidate(self, base.backend, base.quantization, (*base.steps, step), blocks)
                for blocks in _merged(base.steps, base.quantization, step)
            )
            self._made[name] = next((item for item in made if item is not None), None)
        return self._made[name]


def pool(
    spec: OptimizedModelSpec,
    accelerator_class: AcceleratorClass,
    toolchain: Toolchain,
    missing: Missing = unavailable,
    table: Sequence[Support] = SUPPORTED,
) -> Pool:
    """Candidates for a spec with a profile, from what `table` offers and `missing` lets through.

    Blocks that the spec names come first, each as a candidate or a step.
    """
    empty = Pool(spec, accelerator_class, toolchain, missing)
    found: dict[str, Candidate] = {}
    for backend, options in _precisions(spec, accelerator_class, table):
        made = (_candidate(empty, backend, one, (), Blocks(None, None, None, one)) for one in options)
        candidate = next((item for item in made if item is not None), None)
        if candidate is not None:
            found.setdefault(candidate.rung.key, candidate)
    precisions = tuple(
        Candidate(_numbered(item.rung, number), item.backend, item.quantization)
        for number, item in enumerate(found.values())
    )
    chains = tuple(chain for chain in _chains(spec) if precisions and _possible(empty, precisions, chain))
    return Pool(spec, accelerator_class, toolchain, missing, precisions, chains)


Options = tuple[Quantization | None, ...]
"""The same done better and less well; the first that is available is taken."""


def _precisions(
    spec: OptimizedModelSpec, chosen: AcceleratorClass, table: Sequence[Support]
) -> Iterator[tuple[Backend, Options]]:
    """(backend, settings): the given one, then by format, by method in the table's order, by backend."""
    rows = [row for row in table if row.vendor == chosen.spec.vendor and spec.task in row.tasks]
    named = spec.engine.backend
    backends: list[Backend] = list(dict.fromkeys(row.backend for row in rows))
    if named is not Backend.AUTO:
        backends = [named]
    elif len(backends) > 1:
        # Torch is the baseline's own runtime: without compression it is the baseline.
        backends = [backend for backend in backends if backend is not Backend.TORCH]
    given = spec.optimization.quantization
    calibration = given.calibration if given is not None else Calibration()
    if given is not None:
        yield from ((backend, (given,)) for backend in backends)
    bits_first = spec.optimization.profile is Profile.SIZE or spec.task is Task.TEXT_GENERATION
    for format_ in _FOR_SIZE if bits_first else _FOR_SPEED:
        if any(needed not in chosen.spec.formats for needed in _NEEDED.get(format_, (format_,))):
            continue
        lists = [
            [
                (backend, _settings(format_, method, calibration))
                for row in rows
                if row.backend is backend and row.format is format_
                for method in row.methods or (QuantizationMethod.AUTO,)
            ]
            for backend in backends
        ]
        # Each backend's preferred method first, then the others.
        for place in range(max(map(len, lists), default=0)):
            yield from (options[place] for options in lists if place < len(options))


def _settings(format_: Format, method: QuantizationMethod, calibration: Calibration) -> Options:
    """Groups where weights get few bits; a scale for each channel where there are no groups."""
    if format_ is Format.NONE:
        return (None,)
    mixed = Mixed(average_bits=6, formats=list(_MIXED)) if format_ is Format.MIXED else None
    plain = Quantization(format=format_, method=method, mixed=mixed, calibration=calibration)
    if format_ in (Format.INT4, Format.INT2):
        return (plain.model_copy(update={"granularity": Granularity.PER_GROUP, "group_size": GROUP_SIZE}), plain)
    return (plain,)


def _chains(spec: OptimizedModelSpec) -> Iterator[tuple[Step, ...]]:
    """What the spec names, then depth, width, rank and the key-value cache; each from gentle to strong."""
    given = spec.optimization
    if given.distillation is not None:
        yield (Step("distillation", "distillation as given", (Blocks(given.distillation, None, None, None),)),)
    if given.pruning is not None:
        yield (Step("pruning", "pruning as given", (Blocks(None, given.pruning, None, None),)),)
    if given.low_rank is not None:
        yield (Step("low rank", "low rank as given", (Blocks(None, None, given.low_rank, None),)),)
    # A third of 6, 12 or 24 layers is a whole number of them.
    yield _removals(PruningGranularity.LAYERS, (0.34, 0.5))
    both = (PruningGranularity.HEADS, PruningGranularity.NEURONS)
    yield _removals(PruningGranularity.HEADS_AND_NEURONS, (0.25, 0.5), covers=both)
    yield _removals(PruningGranularity.NEURONS, (0.25, 0.5))
    yield _removals(PruningGranularity.HEADS, (0.25, 0.5))
    yield tuple(
        Step("low rank", f"rank by {energy:.0%} of the energy", (Blocks(None, None, LowRank(energy=energy), None),))
        for energy in (0.9, 0.8)
    )
    cache = Quantization(format=Format.NONE, kv_cache_format=KvCacheFormat.INT8)
    yield (Step("key-value cache", "key-value cache in INT8", (Blocks(None, None, None, cache),)),)


def _removals(
    granularity: PruningGranularity, shares: tuple[float, ...], covers: tuple[PruningGranularity, ...] = ()
) -> tuple[Step, ...]:
    what = PIECES[granularity]
    ways = [
        (PruningCriterion.GRADIENT, RECOVERY_STEPS), (PruningCriterion.MAGNITUDE, RECOVERY_STEPS),
        (PruningCriterion.MAGNITUDE, 0),
    ]  # fmt: skip
    if granularity is not PruningGranularity.LAYERS:
        ways.insert(0, (PruningCriterion.RECONSTRUCTION, RECOVERY_STEPS))
    return tuple(
        Step(
            what,
            f"{share:.0%} of the {what} removed",
            tuple(
                Blocks(
                    None,
                    Pruning(granularity=granularity, criterion=criterion, sparsity=share, recovery_steps=recovery),
                    None,
                    None,
                )
                for criterion, recovery in ways
            ),
            tuple(PIECES[other] for other in covers),
        )
        for share in shares
    )


@lru_cache(maxsize=64)
def _pool_of(spec: str, accelerator_class: str, toolchain: str) -> Pool:
    return pool(
        OptimizedModelSpec.model_validate_json(spec),
        AcceleratorClass.model_validate_json(accelerator_class),
        Toolchain.model_validate_json(toolchain),
    )


def pool_of(spec: OptimizedModelSpec, accelerator_class: AcceleratorClass, toolchain: Toolchain) -> Pool:
    """As `pool`, remembered: every visit of a model asks again."""
    return _pool_of(*(item.model_dump_json(by_alias=True, exclude_none=True)
                      for item in (spec, accelerator_class, toolchain)))  # fmt: skip


def _possible(pool: Pool, precisions: tuple[Candidate, ...], chain: tuple[Step, ...]) -> bool:
    return any(pool.extended(base, chain[0]) is not None for base in precisions)


def _merged(steps: tuple[Step, ...], quantization: Quantization | None, added: Step) -> list[Blocks]:
    """Blocks of all steps together, once for each way to do the added one; none where two need the same block."""
    distillation: Distillation | None = None
    pruning: Pruning | None = None
    low_rank: LowRank | None = None
    for step in steps:
        blocks = step.variants[0]
        distillation, pruning = blocks.distillation or distillation, blocks.pruning or pruning
        low_rank = blocks.low_rank or low_rank
    found = []
    for blocks in added.variants:
        if (
            (blocks.distillation and distillation)
            or (blocks.pruning and pruning)
            or (blocks.low_rank and low_rank)
            or (blocks.quantization and quantization is None)
        ):
            continue
        precision = quantization
        if blocks.quantization is not None and quantization is not None:
            precision = quantization.model_copy(update={"kv_cache_format": blocks.quantization.kv_cache_format})
        found.append(
            Blocks(blocks.distillation or distillation, blocks.pruning or pruning,
                   blocks.low_rank or low_rank, precision)
        )  # fmt: skip
    return found


def _candidate(
    pool: Pool, backend: Backend, quantization: Quantization | None, steps: tuple[Step, ...], blocks: Blocks
) -> Candidate | None:
    """None for what cannot be built."""
    facts = facts_of(pool.accelerator_class)
    recipe = _trained_alike(pool.spec, resolve_recipe(_pinned(pool.spec, backend), blocks, facts))
    if any(field.startswith(("optimization.", "engine.backend")) for field, _ in pool.missing(recipe, facts)):
        return None
    key = build_key(recipe, pool.toolchain, facts)
    rung = Rung(0, recipe, key, engine_build_name(key), evidence_request(pool.spec), facts)
    # The step as it is done, so that what is added later builds on that.
    done = replace(steps[-1], variants=(blocks,)) if steps else None
    return Candidate(rung, backend, blocks.quantization or quantization, (*steps[:-1], done) if done else ())


def _pinned(spec: OptimizedModelSpec, backend: Backend) -> OptimizedModelSpec:
    return spec.model_copy(update={"engine": spec.engine.model_copy(update={"backend": backend})})


def _trained_alike(spec: OptimizedModelSpec, recipe: Recipe) -> Recipe:
    """Equal rows for every precision, so that a pruned checkpoint is made once and shared."""
    if recipe.training is None:
        return recipe
    given = spec.optimization
    rows: Dataset | None = given.distillation.dataset if given.distillation is not None else None
    if rows is None and given.quantization is not None:
        rows = given.quantization.calibration.dataset
    return recipe.model_copy(update={"training": rows or default_dataset(spec.task)})


def _numbered(rung: Rung, number: int) -> Rung:
    return Rung(number, rung.recipe, rung.key, rung.build_name, rung.evidence, rung.accelerator)
