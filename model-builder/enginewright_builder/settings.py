"""One build's settings, from flags and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from enginewright_api.errors import DeterministicError, first_problem
from enginewright_api.recipe import BuildRequest, build_key
from enginewright_builder.machine import default_threads
from enginewright_builder.places import Places

SECONDS_A_SHAPE = 2.0
"""How long engine and baseline are timed at each shape, both together, unless told otherwise."""

TERMINATION_MESSAGE_PATH = Path("/dev/termination-log")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run is told."""

    recipe: Path
    store_uri: str
    places: Places
    signing_key: Path | None
    threads: int
    seconds_a_shape: float
    termination_message: Path | None

    @classmethod
    def of(
        cls,
        *,
        recipe: Path,
        store: str,
        workdir: Path,
        signing_key: Path | None,
        threads: int | None,
        seconds_a_shape: float = SECONDS_A_SHAPE,
        environment: Mapping[str, str] = os.environ,
    ) -> Settings:
        """Environment: DATASETS_DIR, VOLUMES_DIR, TOKENS_DIR (mounts), TERMINATION_MESSAGE_PATH."""

        def folder(variable: str, default: str) -> Path:
            return Path(environment.get(variable) or default)

        return cls(
            recipe=recipe,
            store_uri=store,
            places=Places(
                workdir=workdir.resolve(),
                datasets=folder("DATASETS_DIR", "/datasets"),
                volumes=folder("VOLUMES_DIR", "/volumes"),
                tokens=folder("TOKENS_DIR", "/tokens"),
            ),
            signing_key=signing_key,
            threads=threads or default_threads(),
            seconds_a_shape=seconds_a_shape,
            termination_message=_termination_message(environment),
        )


def read_request(recipe: Path) -> BuildRequest:
    """The recipe file. Raises DeterministicError InvalidRecipe (names the field) or KeyMismatch."""
    try:
        request = BuildRequest.model_validate_json(recipe.read_bytes())
    except OSError as error:
        raise DeterministicError("InvalidRecipe", f"{recipe}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise DeterministicError("InvalidRecipe", f"{recipe.name}: {first_problem(error)}") from error
    expected = build_key(request.recipe, request.toolchain, request.accelerator)
    if request.key != expected:
        raise DeterministicError(
            "KeyMismatch",
            f"{recipe.name}: key is {request.key[:16]}… but recipe, toolchain and accelerator give {expected[:16]}…;"
            " operator and builder are of different versions, or the file was edited",
        )
    return request


def _termination_message(environment: Mapping[str, str]) -> Path | None:
    given = environment.get("TERMINATION_MESSAGE_PATH")
    if given:
        return Path(given)
    return TERMINATION_MESSAGE_PATH if TERMINATION_MESSAGE_PATH.exists() else None
