"""values.yaml and its schema say the same: every key in both, with a type that fits; classes as their definition."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
import yaml

from enginewright_api.crd import definitions
from tests.chart.rendering import CHART

Schema = Mapping[str, Any]
TEXT = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: Schema = json.loads((CHART / "values.schema.json").read_text())
OF_HELM = {"global"}
"""Helm gives this key to every chart; a parent chart may set it."""
SAYS_WHAT = {"type", "enum"}
BOUNDS = ("minimum", "exclusiveMinimum", "maximum")


def resolved(schema: Schema) -> Schema:
    """Without a reference at its top."""
    if "$ref" in schema:
        return resolved(SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]])
    return schema


def properties(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """All of an object and of the objects in it; what lists and maps hold is of the user's making."""
    for name, found in resolved(schema).get("properties", {}).items():
        yield (*path, name), resolved(found)
        yield from properties(found, (*path, name))


PROPERTIES = dict(properties(SCHEMA))


def keys(values: Mapping[str, Any], schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All of the values, down to where the schema no longer names keys."""
    for name, value in values.items():
        yield (*path, name)
        below = resolved(schema).get("properties", {}).get(name, {})
        if isinstance(value, Mapping) and resolved(below).get("properties"):
            yield from keys(value, below, (*path, name))


KEYS = set(keys(VALUES, SCHEMA))


def comments(section: str) -> str:
    """Those of a top-level key and above it."""
    block = re.search(rf"((?:^#.*\n)*)^{section}:.*\n((?:^(?:[ #-].*)?\n)*)", TEXT, re.MULTILINE)
    assert block is not None, section
    return "\n".join(re.findall(r"#.*", block[0]))


@pytest.mark.parametrize("path", sorted(KEYS), ids=".".join)
def test_every_key_is_in_the_schema_with_a_type_that_fits(path: tuple[str, ...]) -> None:
    assert path in PROPERTIES, "the schema does not know it"
    schema = PROPERTIES[path]
    assert SAYS_WHAT & schema.keys(), "anything goes"
    value: Any = VALUES
    for name in path:
        value = value[name]
    jsonschema.validate(value, {**schema, "definitions": SCHEMA["definitions"]}, jsonschema.Draft7Validator)


@pytest.mark.parametrize("path", sorted(PROPERTIES), ids=".".join)
def test_everything_that_can_be_set_stands_in_the_values(path: tuple[str, ...]) -> None:
    """With its default, or, where leaving it out means something else than any value, in a comment of its section."""
    if path[0] in OF_HELM:
        return
    assert path in KEYS or re.search(rf"\b{path[-1]}\b", comments(path[0])), "neither a default nor a word about it"


def test_wherever_keys_are_named_no_other_is_taken() -> None:
    for path, schema in {(): SCHEMA, **PROPERTIES}.items():
        if "properties" in schema:
            assert schema.get("additionalProperties") is False, ".".join(path)


def outline(schema: Schema) -> Any:
    """What both ways of writing a schema say: types, names, words, bounds, and what is required."""
    schema = resolved(schema)
    kinds = {schema["type"]} if isinstance(schema.get("type"), str) else set(schema.get("type", ["string"]))
    # A class that is null is left out by the chart, and never comes to be an object.
    found: dict[str, Any] = {"type": kinds - {"null"}, "required": set(schema.get("required", ()))}
    words = re.fullmatch(r"\^\(([\w|]+)\)\$", schema.get("pattern", ""))
    if "enum" in schema or words:
        found["words"] = set(schema.get("enum") or words[1].split("|"))  # type: ignore[index]
    bounds = [schema.get(name) for name in BOUNDS]
    if bounds[1] is True:  # as OpenAPI has it
        bounds[:2] = None, bounds[0]
    found["bounds"] = bounds
    found["properties"] = {name: outline(each) for name, each in schema.get("properties", {}).items()}
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), Mapping):
            found[inner] = outline(schema[inner])
    return found


def test_the_fields_of_a_class_are_those_of_its_definition() -> None:
    (crd,) = [item for item in definitions() if item["spec"]["names"]["kind"] == "AcceleratorClass"]
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert outline(SCHEMA["properties"]["acceleratorClasses"]["additionalProperties"]) == outline(spec)
