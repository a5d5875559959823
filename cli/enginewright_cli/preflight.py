"""What a model will take and what of it would be refused, by its config.json before anything is fetched or built."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.build_time import build_seconds, total_seconds
from enginewright_api.errors import EnginewrightError
from enginewright_api.footprint import check_will_fit, footprint, shown
from enginewright_api.geometry import Geometry
from enginewright_api.optimization import Format, QuantizationMethod
from enginewright_api.recipe import Recipe
from enginewright_api.source import Source
from enginewright_api.support import SUPPORTED, toolchain_of
from enginewright_builder.places import Places
from enginewright_builder.positions import check_draft_limits, check_limits, context_tokens
from enginewright_builder.sources.field import SOURCE, told_of
from enginewright_builder.sources.origins import origin_of
from enginewright_operator.core.draft import Rung

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Preflight:
    """Estimates of one rung."""

    memory: str
    """Serving one replica at the limits."""
    time: str
    """Building it here, with nothing in the cache."""
    problems: tuple[str, ...]
    """Why it will not fit, and why the builder refuses it; empty when neither is so."""
    parts: str
    """Where the memory goes."""


@dataclass(frozen=True, slots=True)
class Model:
    """What config.json says of a model."""

    config: dict[str, Any]
    geometry: Geometry


def model_of(source: Source, field: str = SOURCE) -> Model | str:
    """A source's model, or why it is not known here; `field` is where the spec names it."""
    nowhere = Path(tempfile.gettempdir()) / "enginewright-no-such-volume"
    try:
        with told_of(field):
            config = origin_of(source, Places(nowhere, nowhere, nowhere, nowhere)).config()
            return Model(config, Geometry.of(config))
    except EnginewrightError as error:
        return error.message


def preflight(rung: Rung, model: Model | str, draft: Model | str | None = None) -> Preflight:
    """Memory, time and problems of one rung; `draft` is the model that drafts, where one does."""
    refused = _refused(rung.recipe, model, draft)
    if isinstance(model, str):
        return _unknown(model, refused)
    if isinstance(draft, str):
        return _unknown(draft, refused)
    beside = draft.geometry if draft is not None else None
    found = footprint(model.geometry, rung.recipe, beside)
    try:
        check_will_fit(found, rung.accelerator)
        too_large: list[str] = []
    except EnginewrightError as error:
        too_large = [f"WILL NOT FIT: {error.message}"]
    minutes = _minutes(model.geometry, rung, beside)
    return Preflight(shown(found.total_bytes), minutes, (*too_large, *refused), found.sentence())


def _refused(recipe: Recipe, model: Model | str, draft: Model | str | None) -> tuple[str, ...]:
    """What the builder would say of the limits, by its own checks."""
    if isinstance(model, str):
        return ()
    try:
        check_limits(model.config, recipe)
        if isinstance(draft, Model):
            check_draft_limits(draft.config, context_tokens(model.config, recipe.limits))
    except EnginewrightError as error:
        return (f"WILL NOT BE BUILT: {error.message}",)
    return ()


def _unknown(why: str, problems: tuple[str, ...]) -> Preflight:
    return Preflight(UNKNOWN, UNKNOWN, problems, f"not known from here: {why}")


def sentences(rung: Rung, estimate: Preflight) -> list[str]:
    """What the table has no room for: where the memory goes, whether it fits, what was chosen and why."""
    name = f"{rung.title}: "
    told = [
        f"{name}serving needs about {estimate.parts}."
        if estimate.memory != UNKNOWN
        else f"Memory and time {estimate.parts}"
    ]
    return [*told, *(f"{name}{problem}." for problem in estimate.problems), f"{name}{_chosen(rung)}."]


def _chosen(rung: Rung) -> str:
    """Backend and method, and the row of the table of support that they come from."""
    recipe, facts = rung.recipe, rung.accelerator
    format_ = recipe.quantization.format if recipe.quantization is not None else Format.NONE
    fitting = [
        row.backend.value
        for row in SUPPORTED
        if row.vendor == facts.vendor and recipe.task in row.tasks and row.format is format_
    ]
    others = f" (of {', '.join(dict.fromkeys(fitting))}, fastest first)" if len(set(fitting)) > 1 else ""
    method = recipe.quantization.method if recipe.quantization is not None else QuantizationMethod.AUTO
    how = f", method {method.value}" if method is not QuantizationMethod.AUTO else ""
    toolchain = toolchain_of(recipe.task, recipe.backend)
    where = f", toolchain {toolchain}" if toolchain != "default" else ""
    return f"backend {recipe.backend.value}{others}{how}{where}"


def _minutes(geometry: Geometry, rung: Rung, draft: Geometry | None) -> str:
    if rung.accelerator.vendor != "cpu":
        return "depends on the GPU"
    seconds = build_seconds(
        geometry,
        rung.recipe,
        rung.evidence,
        architecture=rung.accelerator.architecture,
        cores=len(os.sched_getaffinity(0)),
        draft=draft,
    )
    total = total_seconds(seconds)
    return f"about {total / 60:.0f} min" if total >= 90 else f"about {max(round(total, -1), 10):.0f} s"
