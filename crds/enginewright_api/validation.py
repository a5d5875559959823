"""The checks of the API server, without one: defaults, structure, CEL rules.

Local mode admits objects through `admit`; `enginewright validate` prints `problems`. The expressions are those of the
CRDs, so both say the same sentence.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.crd import Schema, schema_of
from enginewright_api.engine_build import EngineBuild
from enginewright_api.errors import DeterministicError
from enginewright_api.meta import API_VERSION
from enginewright_api.optimized_model import OptimizedModel
from enginewright_api.rules import EXTENSION

RESOURCES: dict[str, type[BaseModel]] = {
    model.__name__: model for model in (OptimizedModel, EngineBuild, AcceleratorClass)
}
_ENVIRONMENT = cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN})


def admit(manifest: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The object with its defaults filled in. DeterministicError `Invalid` naming every wrong field."""
    found = problems(manifest, old)
    if found:
        name = manifest.get("metadata", {}).get("name", "?") if isinstance(manifest.get("metadata"), Mapping) else "?"
        raise DeterministicError(
            "Invalid", f"{manifest.get('kind', 'object')} {name!r} is invalid: " + "; ".join(found)
        )
    return with_defaults(manifest)


def problems(manifest: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """What the API server would refuse, one sentence each, `path: what is wrong`; empty when nothing."""
    model = RESOURCES.get(str(manifest.get("kind")))
    if model is None or manifest.get("apiVersion") != API_VERSION:
        if not (manifest.get("apiVersion") and manifest.get("kind")):
            return [f"apiVersion and kind are required: {API_VERSION} and one of {', '.join(RESOURCES)}"]
        given = f"{manifest['apiVersion']} {manifest['kind']}"
        return [f"kind: {given} is not one of {API_VERSION} {', '.join(RESOURCES)}"]
    schema = _schema(model.__name__)
    filled = with_defaults(manifest)
    wrong = dict(_nulls(schema, filled, path=""))
    try:
        model.model_validate(filled)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = _path(detail["loc"])
            wrong.setdefault(path, f"{path}: {_complaint(detail, model)}")
    if wrong:
        return list(wrong.values())
    # Pydantic reads "3" and true as numbers, the server does not.
    if unlike := list(_unlike(schema, filled, path="")):
        return unlike
    before = with_defaults(old) if old is not None else None
    return list(_broken_rules(schema, filled, before, path=""))


def with_defaults(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the schema's defaults filled in, in `spec` and where it is there in `status`, as the server does.

    A null that has a default gives way to it; in the envelope a null is as good as nothing.
    """
    properties = _schema(str(manifest["kind"]))["properties"]
    filled = _without_nulls(manifest)
    if isinstance(filled.get("metadata"), Mapping):
        filled["metadata"] = _without_nulls(filled["metadata"])
    for part in ("spec", "status"):
        if part in filled:
            filled[part] = _filled(properties[part], filled[part])
    return filled


def _without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


@lru_cache
def _schema(kind: str) -> Schema:
    return schema_of(RESOURCES[kind])


@lru_cache(maxsize=512)
def _program(rule: str) -> Any:
    return _ENVIRONMENT.compile(rule)


def _filled(schema: Schema, value: Any) -> Any:
    if isinstance(value, Mapping) and "properties" in schema:
        out = dict(value)
        for name, child in schema["properties"].items():
            if out.get(name) is None and "default" in child:
                out[name] = copy.deepcopy(child["default"])
            if name in out:
                out[name] = _filled(child, out[name])
        return out
    if isinstance(value, list) and "items" in schema:
        return [_filled(schema["items"], item) for item in value]
    return value


def _nulls(schema: Schema, value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Paths of the nulls that no default replaces, each with its sentence.

    Server-side apply refuses all of them. Other writes take those of optional fields for left out, so that it would
    depend on the tool whether a file works.
    """
    if value is None:
        yield path, f"{path}: is null; give it a value or leave it out"
    elif isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, item in value.items():
            child, there = known.get(name, others), f"{path}.{name}".lstrip(".")
            if item is None and name in schema.get("required", ()):
                yield there, f"{there}: is required, but null"
            elif child is not None:
                yield from _nulls(child, item, there)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _nulls(schema["items"], item, f"{path}[{index}]")


def _unlike(schema: Schema, value: Any, path: str) -> Iterator[str]:
    """Numbers and booleans that are written as something else."""
    wanted = schema.get("type")
    if value is not None and wanted in _WRITTEN:
        what, fits = _WRITTEN[wanted]
        if not fits(value):
            yield f"{path}: must be {what}, got {value!r}"
    elif isinstance(value, Mapping):
        for name, child in schema.get("properties", {}).items():
            yield from _unlike(child, value.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unlike(schema.get("items", {}), item, f"{path}[{index}]")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_WRITTEN: dict[str, tuple[str, Callable[[object], bool]]] = {
    "integer": ("a whole number", _is_number),
    "number": ("a number", _is_number),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
}
"""Types of a schema that other values pass for, what they are called, and whether a value is one."""


def _broken_rules(schema: Schema, value: Any, old: Any, path: str) -> Iterator[str]:
    for entry in schema.get(EXTENSION, ()):
        if "oldSelf" in entry["rule"] and old is None:
            continue
        # A rule that cannot be evaluated gives an error object, which is not True; the server refuses then, too.
        if _program(entry["rule"]).eval(data={"self": value, "oldSelf": old}).value() is not True:
            yield f"{path}: {entry['message']}" if path else entry["message"]
    if isinstance(value, Mapping):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                before = old.get(name) if isinstance(old, Mapping) else None
                yield from _broken_rules(child, value[name], before, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _broken_rules(schema["items"], item, None, f"{path}[{index}]")


_OBJECTS = frozenset({"model_type", "model_attributes_type", "dict_type"})
"""What pydantic finds where it wants a mapping."""


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _complaint(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong with a field, as the end of a sentence that begins with its path."""
    if detail["type"] == "missing":
        return "is required"
    if detail["type"] == "extra_forbidden":
        known = _known_fields(_schema(model.__name__), detail["loc"][:-1])
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
        return f"unknown field; {hint}"
    if detail["type"] in _OBJECTS:
        return f"must be an object with fields, got {detail['input']!r}"[:200]
    shown = repr(detail["input"])
    text = (
        detail["msg"]
        .removeprefix("Value error, ")
        .replace("Input should", "must", 1)
        .replace("String should", "must", 1)
    )
    return f"{text}, got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _known_fields(schema: Schema, location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        schema = schema["items"] if isinstance(part, int) else schema.get("properties", {}).get(part, {})
    return list(schema.get("properties", {}))
