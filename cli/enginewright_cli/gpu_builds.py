"""What a rung for NVIDIA GPUs would run and write, shown without a GPU."""

from __future__ import annotations

from typing import Any

import yaml

from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.tensorrt.plan import encoder_plan_of
from enginewright_builder.tensorrt_llm.plan import plan_of


def gpu_build(recipe: Recipe) -> dict[str, Any] | None:
    """Image, command lines and files of one rung; None for other backends."""
    if recipe.backend is Backend.TENSORRT:
        encoder = encoder_plan_of(recipe)
        return {"image": encoder.image, "commands": encoder.lines()}
    if recipe.backend is not Backend.TENSORRT_LLM:
        return None
    plan = plan_of(recipe)
    found: dict[str, Any] = {"image": plan.image, "gpus": plan.world_size, "commands": plan.lines()}
    if plan.files:
        found["files"] = plan.files
    if plan.checkpoint:
        found["checkpoint"] = plan.checkpoint
        found["placeholders"] = {name: value for name, value in plan.placeholders.items() if value is not None}
    return found


class _Lines(yaml.SafeDumper):
    """Texts of several lines stay readable."""


_Lines.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def gpu_build_text(build: dict[str, Any]) -> str:
    """The same for people."""
    return yaml.dump(build, Dumper=_Lines, sort_keys=False, width=1000)
