"""Writes the Triton repository of one model around an engine folder.

<dest>/<model>/config.pbtxt
<dest>/<model>/1/model.py      loads enginewright_serving.triton.encoder, or .generator for text generation
<dest>/<model>/1/engine        engine.json, engine/, tokenizer/ (a link, or the files themselves)
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_api.errors import DeterministicError, first_problem
from enginewright_api.recipe import Task
from enginewright_api.serving_spec import Batching
from enginewright_serving.model_config import render_model_config

Model = TypeVar("Model", bound=BaseModel)

_MODEL_CODE = '''"""Served by enginewright-serving."""
from enginewright_serving.triton.{module} import TritonPythonModel  # noqa: F401
'''


def engine_folder(dest: Path, model: str) -> Path:
    """Where the engine of a model lies in the repository."""
    return dest / check_model_name(model) / "1" / "engine"


def check_model_name(model: str) -> str:
    """The name when it is one path component that Triton and Kubernetes accept."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", model) or ".." in model:
        raise DeterministicError(
            "InvalidModelName", f"model name {model[:100]!r}: lower-case letters, digits, '-' and '.', 253 at most"
        )
    return model


def stage(engine: Path, dest: Path, model: str, batching: Batching) -> Path:
    """Repository around an unpublished engine, which is linked to, not copied. Returns the repository."""
    if not engine.is_dir():
        raise DeterministicError("EngineMissing", f"{engine}: no such folder")
    place = engine_folder(dest, model)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(engine.resolve(), target_is_directory=True)
    write_model(dest, model, batching)
    return dest


def write_model(dest: Path, model: str, batching: Batching) -> None:
    """config.pbtxt and model.py for the engine that already lies in its folder."""
    engine = read_description(engine_folder(dest, model))
    config = render_model_config(model, engine, batching)
    module = "generator" if engine.task is Task.TEXT_GENERATION else "encoder"
    (dest / model / "1" / "model.py").write_text(_MODEL_CODE.format(module=module))
    (dest / model / "config.pbtxt").write_text(config)


def read_description(engine: Path) -> EngineDescription:
    """engine.json of an engine folder, with everything it refers to present."""
    described = read_json(engine / ENGINE_DESCRIPTION, EngineDescription, reason="InvalidEngine")
    entry = Path(described.entry)
    if entry.is_absolute() or ".." in entry.parts or not (engine / "engine" / entry).exists():
        raise DeterministicError(
            "InvalidEngine", f"{engine / ENGINE_DESCRIPTION}: entry {described.entry!r} is not in {engine / 'engine'}"
        )
    if not (engine / "tokenizer" / "tokenizer.json").is_file():
        raise DeterministicError("InvalidEngine", f"{engine / 'tokenizer' / 'tokenizer.json'}: missing")
    return described


def read_batching(file: Path | None) -> Batching:
    """Batching from a JSON file (spec.batching); defaults without one."""
    return Batching() if file is None else read_json(file, Batching, reason="InvalidBatching")


def read_json(file: Path, model: type[Model], *, reason: str) -> Model:
    """A JSON file as one of our types; DeterministicError names the file and the field."""
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DeterministicError(reason, f"{file}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise DeterministicError(reason, f"{file}: {first_problem(error)}") from error
