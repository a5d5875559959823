"""CustomResourceDefinitions from the types: `python -m enginewright_api.crd DIRECTORY` writes them.

Kubernetes wants a structural OpenAPI v3.0 schema: no `$ref`, no `anyOf` with null, boolean exclusive bounds.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import EngineBuild
from enginewright_api.identity import canonical_json
from enginewright_api.meta import GROUP, VERSION
from enginewright_api.optimized_model import OptimizedModel
from enginewright_api.rules import EXTENSION

Schema = dict[str, Any]

CRD_LIMIT_BYTES = 64 * 1024
"""Of the minified JSON, as the API server stores it."""

_KEPT = (
    "type", "description", "default", "enum", "pattern", "format", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "required", EXTENSION, "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)  # fmt: skip


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_READY = _column("Ready", _condition("Ready", "status"))
_REASON = _column("Reason", _condition("Ready", "reason"))
_MESSAGE = _column("Message", _condition("Ready", "message"), priority=1)

_DEFINITIONS: tuple[dict[str, Any], ...] = (
    {
        "model": OptimizedModel,
        "plural": "optimizedmodels",
        "short": "om",
        "scope": "Namespaced",
        "columns": [
            _READY,
            _column("Backend", ".status.active.backend"),
            _column("Format", ".status.active.format"),
            _column("Replicas", ".status.replicas", "integer"),
            _REASON,
            _AGE,
            _MESSAGE,
        ],
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    },
    {
        "model": EngineBuild,
        "plural": "enginebuilds",
        "short": "eb",
        "scope": "Namespaced",
        "columns": [
            _READY,
            _column("Phase", ".status.phase"),
            _column("Backend", ".spec.recipe.backend"),
            _column("Format", ".spec.recipe.quantization.format"),
            _REASON,
            _AGE,
            _MESSAGE,
        ],
        "subresources": {"status": {}},
    },
    {
        "model": AcceleratorClass,
        "plural": "acceleratorclasses",
        "short": "ac",
        "scope": "Cluster",
        "columns": [
            _column("Vendor", ".spec.vendor"),
            _column("Memory", ".spec.memoryGiB", "number"),
            _column("Interconnect", ".spec.interconnect", priority=1),
            _column("Nodes", ".status.nodes", "integer"),
            _column("Allocatable", ".status.allocatable", "integer"),
            _column("In use", ".status.inUse", "integer"),
            _AGE,
        ],
        "subresources": {"status": {}},
    },
)


def _structural(node: Schema, definitions: Schema) -> Schema:
    """One schema node in the form the API server accepts."""
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        node = target | {key: value for key, value in node.items() if key != "$ref"}
    if "anyOf" in node:
        (branch,) = [option for option in node["anyOf"] if option.get("type") != "null"]
        own = {key: value for key, value in node.items() if key != "anyOf" and value is not None}
        return _structural(branch | own, definitions)
    out = {key: node[key] for key in _KEPT if node.get(key) is not None}
    if "const" in node:
        out |= {"type": "string", "enum": [node["const"]]}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in node:
            out |= {bound: node[exclusive], exclusive: True}
    if "items" in node:
        out["items"] = _structural(node["items"], definitions)
    if "properties" in node:
        out["properties"] = {name: _structural(child, definitions) for name, child in node["properties"].items()}
    elif isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    elif node.get("type") == "object" and node.get("additionalProperties") is True:
        out["x-kubernetes-preserve-unknown-fields"] = True
    return out


def _fill_object_defaults(model: type[BaseModel], node: Schema) -> None:
    """Optional objects default to their own defaults, spelt out: the server holds its rules against them."""
    for name, field in model.model_fields.items():
        child = node["properties"].get(field.alias or name)
        for nested in _models_in(field.annotation):
            inner = child["items"] if child.get("type") == "array" else child
            if "properties" not in inner:
                continue
            _fill_object_defaults(nested, inner)
            if inner is child and field.default_factory is not None:
                child["default"] = {
                    key: value["default"] for key, value in child["properties"].items() if "default" in value
                }


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models in `Model`, `Model | None`, `list[Model]` and `Annotated` forms of these."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _models_in(argument)


def schema_of(model: type[BaseModel]) -> Schema:
    """Structural schema of a resource: spec, status, and a bare metadata."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    schema = copy.deepcopy(_structural(raw, raw.get("$defs", {})))
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    spec = model.model_fields["spec"].annotation
    if not (isinstance(spec, type) and issubclass(spec, BaseModel)):
        raise TypeError(f"{model.__name__}.spec must be a model")
    _fill_object_defaults(spec, schema["properties"]["spec"])
    # kstatus calls an object without observedGeneration current; a fresh one is not.
    schema["properties"]["status"]["default"] = {"observedGeneration": -1}
    conditions = schema["properties"]["status"]["properties"].get("conditions")
    if conditions is not None:
        conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    schema["required"] = ["spec"]
    return schema


def definitions() -> list[Schema]:
    """The three CustomResourceDefinitions."""
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{item['plural']}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "names": {
                    "kind": item["model"].__name__,
                    "listKind": f"{item['model'].__name__}List",
                    "plural": item["plural"],
                    "singular": item["model"].__name__.lower(),
                    "shortNames": [item["short"]],
                    "categories": ["enginewright"],
                },
                "scope": item["scope"],
                "versions": [
                    {
                        "name": VERSION,
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema_of(item["model"])},
                        "subresources": item["subresources"],
                        "additionalPrinterColumns": item["columns"],
                    }
                ],
            },
        }
        for item in _DEFINITIONS
    ]


def write(directory: Path) -> list[Path]:
    """Write one YAML file a resource; returns the paths. ValueError when one exceeds the limit."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for definition in definitions():
        text = "# Generated from enginewright_api by `make generate`. Do not edit.\n" + yaml.safe_dump(
            json.loads(json.dumps(definition)), sort_keys=False, allow_unicode=True, width=120
        )
        if (size := len(canonical_json(definition))) > CRD_LIMIT_BYTES:
            raise ValueError(f"{definition['metadata']['name']}: {size} bytes, above {CRD_LIMIT_BYTES}")
        path = directory / f"{definition['metadata']['name']}.yaml"
        path.write_text(text)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else "crds")):
        sys.stdout.write(f"{written} {written.stat().st_size}\n")
