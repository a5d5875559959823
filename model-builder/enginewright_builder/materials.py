"""Checkpoints of a recipe, each fetched under a name of its own, so that errors and reports say which one it is."""

from __future__ import annotations

from dataclasses import dataclass

from enginewright_api.recipe import Recipe
from enginewright_api.short_source import teacher_source
from enginewright_api.source import Source
from enginewright_builder.places import Places
from enginewright_builder.sources.field import DRAFT, STUDENT, TEACHERS
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.fetch import FETCH, Fetch
from enginewright_builder.stages.stage import Output


@dataclass(frozen=True, slots=True)
class Materials:
    """Fetches what a recipe names. All raise StageError."""

    recipe: Recipe
    cache: StageCache
    places: Places

    def source(self) -> Output:
        """The model itself."""
        return self.cache.run(Fetch(self.recipe.source, self.places))

    def draft(self) -> Output | None:
        """The model that drafts; None where none does."""
        source = self.recipe.draft_source
        return None if source is None else self._fetched(source, "draft", DRAFT)

    def student(self) -> Output | None:
        """The model that learns; None where it is made of the source's layers."""
        distillation = self.recipe.distillation
        source = distillation.student.source if distillation is not None else None
        return None if source is None else self._fetched(source, "student", STUDENT)

    def teachers(self, itself: Output) -> tuple[Output, ...]:
        """The models that are learnt from, in the recipe's order. The teacher `self` is `itself`."""
        distillation = self.recipe.distillation
        found = []
        for index, name in enumerate(distillation.teachers if distillation is not None else ()):
            source, field = teacher_source(name), f"{TEACHERS}[{index}]"
            found.append(itself if source is None else self._fetched(source, f"teacher-{index}", field))
        return tuple(found)

    def _fetched(self, source: Source, name: str, field: str) -> Output:
        return self.cache.run(Fetch(source, self.places, name=f"{FETCH}-{name}", field=field))
