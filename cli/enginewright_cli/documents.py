"""Reading model.yaml the way its author meant it: what YAML would silently change is refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from enginewright_api.errors import DeterministicError

Document = dict[str, Any]

_YAML_1_1_BOOLEANS = {"y", "n", "yes", "no", "on", "off"}
_BOOLEAN = "tag:yaml.org,2002:bool"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and words that YAML 1.1 reads as booleans."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):  # {{ .Values.name }} of a template is a mapping in a mapping
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a text; templates have to be rendered first", key_node.start_mark
            )
        line = key_node.start_mark.line + 1
        if key_node.value in seen:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"key {key_node.value!r} appears twice (also on line {seen[key_node.value]})",
                key_node.start_mark,
            )
        seen[key_node.value] = line
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _boolean(loader: _StrictLoader, node: yaml.ScalarNode) -> bool:
    if node.value.lower() in _YAML_1_1_BOOLEANS:
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value} would be read as a boolean; write true, false or quote it", node.start_mark
        )
    return yaml.SafeLoader.construct_yaml_bool(loader, node)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_constructor(_BOOLEAN, _boolean)
# PyYAML leaves y and n alone; the API server's YAML reader does not.
_StrictLoader.add_implicit_resolver(_BOOLEAN, re.compile("^[yYnN]$"), list("yYnN"))
# Nor does it read 1e-2 as a number.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_documents(source: str) -> list[Document]:
    """Objects in a file (`-` is standard input), or in all .yaml and .yml files below a folder.

    Lists (`kind: List`) are taken apart. Raises DeterministicError naming file and line.
    """
    documents = [document for name, text in _texts(source) for document in _parse(name, text)]
    if not documents:
        raise DeterministicError("NoObjects", f"{source}: holds no objects")
    return documents


def _texts(source: str) -> Iterator[tuple[str, str]]:
    if source == "-":
        yield "standard input", sys.stdin.read()
        return
    path = Path(source)
    if path.is_dir():
        for child in sorted(path.rglob("*")):
            if child.suffix in {".yaml", ".yml"} and not child.is_dir():
                yield str(child), _text(child)
        return
    yield source, _text(path)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise DeterministicError("FileNotFound", f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DeterministicError("UnreadableFile", f"{path}: cannot be read ({error})") from None


def _parse(name: str, text: str) -> Iterator[Document]:
    try:
        for document in yaml.load_all(text, Loader=_StrictLoader):
            if document is None:
                continue
            if not isinstance(document, dict):
                raise DeterministicError("NotAnObject", f"{name}: expected an object with apiVersion and kind")
            yield from _items(name, document) if document.get("kind") == "List" else [document]
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DeterministicError("InvalidYaml", f"{name}{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise DeterministicError("InvalidYaml", f"{name}: {error}") from None
    except RecursionError:
        raise DeterministicError("InvalidYaml", f"{name}: is nested too deeply to be read") from None


def _items(name: str, document: Document) -> list[Document]:
    items = document.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DeterministicError("NotAnObject", f"{name}: items of a List: expected objects with apiVersion and kind")
    return items
