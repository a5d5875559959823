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
    try:
        model.model_validate(dict(manifest))
    except ValidationError as error:
        return [_sentence(detail, model) for detail in error.errors(include_url=False)]
    # Pydantic reads "3" and true as numbers, the server does not.
    if unlike := list(_unlike(_schema(model.__name__), manifest, path="")):
        return unlike
    filled = with_defaults(manifest)
    before = with_defaults(old) if old is not None else None
    return list(_broken_rules(_schema(model.__name__), filled, before, path=""))


def with_defaults(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the schema's defaults filled in, in `spec` and where it is there in `status`, as the server does."""
    properties = _schema(str(manifest["kind"]))["properties"]
    filled = dict(manifest) | {"spec": _filled(properties["spec"], manifest.get("spec", {}))}
    if "status" in manifest:
        filled["status"] = _filled(properties["status"], manifest["status"])
    return filled


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
            if name not in out and "default" in child:
                out[name] = copy.deepcopy(child["default"])
            if name in out:
                out[name] = _filled(child, out[name])
        return out
    if isinstance(value, list) and "items" in schema:
        return [_filled(schema["items"], item) for item in value]
    return value


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


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = ""
    for part in detail["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    path = path.lstrip(".")
    if detail["type"] == "missing":
        return f"{path}: is required"
    if detail["type"] == "extra_forbidden":
        known = _known_fields(_schema(model.__name__), detail["loc"][:-1])
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
        return f"{path}: unknown field; {hint}"
    if detail["type"] in _OBJECTS:
        return f"{path}: must be an object with fields, got {detail['input']!r}"[:200]
    shown = repr(detail["input"])
    text = (
        detail["msg"]
        .removeprefix("Value error, ")
        .replace("Input should", "must", 1)
        .replace("String should", "must", 1)
    )
    return f"{path}: {text}, got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _known_fields(schema: Schema, location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        schema = schema["items"] if isinstance(part, int) else schema.get("properties", {}).get(part, {})
    return list(schema.get("properties", {}))
