"""What an engine's bytes follow from beside its recipe: checkpoints that are fetched, rows that are drawn.

Each checkpoint is fetched under a name of its own, so that errors and reports say which one it is; whatever is used is
listed for the provenance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from enginewright_api.optimization import Quantization
from enginewright_api.recipe import BuildRequest, Task
from enginewright_api.short_source import teacher_source
from enginewright_api.source import Dataset, Source
from enginewright_api.support import calibrates
from enginewright_builder.datasets.draw import NOTHING, Drawn, draw, without_leaks
from enginewright_builder.datasets.judged import check_kind
from enginewright_builder.datasets.rows import paired
from enginewright_builder.places import Places
from enginewright_builder.provenance import SOURCE, Material, dataset_uri, source_uri
from enginewright_builder.sources.field import DRAFT, STUDENT, TEACHERS
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.fetch import FETCH, Fetch
from enginewright_builder.stages.stage import Output
from enginewright_builder.stages.transform import needs_training

_DRAFT = "draft"
FETCH_DRAFT = f"{FETCH}-{_DRAFT}"


@dataclass(frozen=True, slots=True)
class Materials:
    """Gets what a request names. Checkpoints raise StageError, rows raise DeterministicError or TransientError."""

    request: BuildRequest
    cache: StageCache
    places: Places
    listed: list[Material] = field(default_factory=list)
    """What was got so far, in that order."""

    def source(self) -> Output:
        """The model itself."""
        source = self.request.recipe.source
        return self._listed(SOURCE, source, self.cache.run(Fetch(source, self.places)))

    def draft(self) -> Output | None:
        """The model that drafts; None where none does."""
        source = self.request.recipe.draft_source
        return None if source is None else self._fetched(_DRAFT, source, DRAFT)

    def student(self) -> Output | None:
        """The model that learns; None where it is made of the source's layers."""
        distillation = self.request.recipe.distillation
        source = distillation.student.source if distillation is not None else None
        return None if source is None else self._fetched("student", source, STUDENT)

    def teachers(self, itself: Output) -> tuple[Output, ...]:
        """The models that are learnt from, in the recipe's order. The teacher `self` is `itself`."""
        distillation = self.request.recipe.distillation
        found = []
        for index, name in enumerate(distillation.teachers if distillation is not None else ()):
            source, field_ = teacher_source(name), f"{TEACHERS}[{index}]"
            found.append(itself if source is None else self._fetched(f"teacher-{index}", source, field_))
        return tuple(found)

    def training(self, evaluation: Drawn) -> Drawn:
        """Rows that steps learn from or look at, none of which is judged on; nothing where no step does."""
        recipe = self.request.recipe
        if not needs_training(recipe):
            return NOTHING
        dataset = recipe.training or self.request.evidence.dataset
        rows, _ = without_leaks(draw(dataset, "calibration", self.places), evaluation.rows)
        check_kind(rows, recipe.task)
        used = Drawn(rows.name, paired(rows.rows)) if recipe.task is Task.RERANKING else rows
        return self._used("training-rows", dataset, used)

    def calibration(self, quantization: Quantization, evaluation: Drawn) -> tuple[Drawn, int]:
        """Rows that ranges are measured on, and how many were left out because they are judged on."""
        if not calibrates(quantization):
            return NOTHING, 0
        dataset = quantization.calibration.dataset or self.request.evidence.dataset
        kept, leaked = without_leaks(draw(dataset, "calibration", self.places), evaluation.rows)
        return self._used("calibration-rows", dataset, kept.first(quantization.calibration.samples)), leaked

    def _fetched(self, name: str, source: Source, field_: str) -> Output:
        found = self.cache.run(Fetch(source, self.places, name=f"{FETCH}-{name}", field=field_))
        return self._listed(name, source, found)

    def _listed(self, name: str, source: Source, found: Output) -> Output:
        self.listed.append(Material(name=name, uri=source_uri(source), sha256=found.result["sourceDigest"]))
        return found

    def _used(self, name: str, dataset: Dataset, rows: Drawn) -> Drawn:
        self.listed.append(Material(name=name, uri=dataset_uri(dataset), sha256=rows.digest))
        return rows
