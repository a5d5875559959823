"""The model that drafts: what must hold of it beside the model it drafts for, and its place in the engine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.geometry import Geometry
from enginewright_api.recipe import Recipe
from enginewright_builder.description import describe
from enginewright_builder.generation_description import DRAFT_ENTRY
from enginewright_builder.positions import check_draft_limits
from enginewright_builder.sources.checkpoint import Checkpoint
from enginewright_builder.sources.field import DRAFT, told_of
from enginewright_builder.sources.vocabulary import vocabulary


def describe_draft(draft: Checkpoint, recipe: Recipe) -> EngineDescription:
    """engine.json of the draft, were it served alone. Raises DeterministicError InvalidCheckpoint."""
    with told_of(DRAFT):
        return describe(draft, recipe.for_draft(), recipe.backend)


def geometry_of_draft(draft: Checkpoint) -> Geometry:
    """Its sizes. Raises DeterministicError InvalidCheckpoint."""
    with told_of(DRAFT):
        return Geometry.of(draft.config)


def check_draft(draft: Checkpoint, model: Checkpoint, recipe: Recipe, context_tokens: int) -> None:
    """Raises DeterministicError: InvalidCheckpoint for what generates no text, InvalidRecipe for other tokens than the
    model's, LimitExceeded for too few positions.

    Both models read the same tokens, so their tokenizers must agree on all of them. Rows of the output beyond the
    tokenizer's (padding) may differ, as long as the draft cannot say what the model cannot read.
    """
    describe_draft(draft, recipe)
    own, other = vocabulary(draft.folder), vocabulary(model.folder)
    if own != other:
        raise DeterministicError(
            "InvalidRecipe",
            f"{DRAFT}: the draft's vocabulary ({len(own)} tokens) is not the model's ({len(other)} tokens);"
            " draft and model must share one tokenizer",
        )
    rows, most = int(draft.config["vocab_size"]), int(model.config["vocab_size"])
    if rows > most:
        raise DeterministicError(
            "InvalidRecipe",
            f"{DRAFT}: the draft's output has {rows} tokens and the model's {most};"
            " it could draft tokens that the model does not have, choose another draft",
        )
    check_draft_limits(draft.config, context_tokens)


def place_draft(draft: Path, model: Path, engine: Path) -> None:
    """Graph and weights of the draft, below the engine.

    What else the runtime reads is the model's own: it refuses a draft whose special tokens have other numbers, which
    is how base models and their chat versions differ, although only the model decides where an answer ends.
    """
    entry = PurePosixPath(DRAFT_ENTRY)
    into = engine / entry.parent
    into.mkdir()
    own = {entry.name, PurePosixPath(entry.name).with_suffix(".bin").name}
    for folder, names in ((draft, own), (model, {path.name for path in model.iterdir()} - own)):
        for name in sorted(names):
            (into / name).hardlink_to(folder / name)
